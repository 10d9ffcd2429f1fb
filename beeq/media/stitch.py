"""Joins clips of any sizes, rates and codecs one after the other.

Pictures that are alike already are copied (``beeq.media.stream_copy``). Otherwise one filter graph makes
all clips alike: the first clip's size and rate, other sizes fitted in and padded, square pixels, sound of
48 kHz stereo, silence where a clip has no sound. A clip lasts as long as the longer of its picture and
its sound.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

from beeq.media.ffmpeg import failure, reading, run
from beeq.media.formats import Container
from beeq.media.paths import NewFile, OpenFile, text_file
from beeq.media.probe import Audio, Facts, Video, picture_of, probe, sound_of
from beeq.media.stream_copy import are_candidates, can_hold_copies, reading_script, stream_copy_of
from beeq.media.timeline import timeline

SAMPLE_RATE_HZ = 48_000
#: The common form of every sound; one that starts late gets silence before it.
ALIKE_FORMAT = "aformat=sample_fmts=fltp:channel_layouts=stereo"
ALIKE_SOUND = f"aresample={SAMPLE_RATE_HZ}:async=1:first_pts=0,{ALIKE_FORMAT}"
#: Titles, chapters and other texts of the inputs are not passed on.
UNTITLED = ("-map_metadata", "-1", "-map_chapters", "-1")
_SILENCE = f"anullsrc=r={SAMPLE_RATE_HZ}:cl=stereo"
_DEFAULT_FPS = Fraction(25)
_MAX_FPS = 120
#: Rates that are printed as 23.98, 29.97 and so on.
_TELEVISION_FPS = tuple(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120))
#: The silence of a mute clip of unknown length; ``concat`` pads it to the length of the picture.
_SOME_SILENCE_S = 0.01


async def stitch_videos(
    sources: Sequence[OpenFile], target: NewFile, container: Container, reach: Callable[[float], None]
) -> None:
    """Write the clips in order, with sound if any of them has some."""
    clips = [await probe(source) for source in sources]
    videos = [picture_of(source, facts) for source, facts in zip(sources, clips, strict=True)]
    if await _stream_copied(sources, (clips, videos), target, container, reach):
        return
    outputs = ["-map", "[v]", *container.video]
    if any(clip.audio is not None for clip in clips):
        outputs += ["-map", "[a]", *container.audio]
    await _join(sources, clips, target, container, (video_graph(clips, videos), outputs, reach))


async def stitch_audio(
    sources: Sequence[OpenFile], target: NewFile, container: Container, reach: Callable[[float], None]
) -> None:
    """Write the sounds of the files in order."""
    clips = [await probe(source) for source in sources]
    sounds = [sound_of(source, facts) for source, facts in zip(sources, clips, strict=True)]
    await _join(
        sources, clips, target, container, (audio_graph(sounds), ["-map", "[a]", *container.audio], reach)
    )


async def _join(
    sources: Sequence[OpenFile],
    clips: Sequence[Facts],
    target: NewFile,
    container: Container,
    plan: tuple[str, list[str], Callable[[float], None]],
) -> None:
    graph, outputs, reach = plan
    total_s = sum(clip.duration_s or 0 for clip in clips)
    ended = await run(
        [
            *(argument for source in sources for argument in reading(source)),
            *("-filter_complex", graph, *outputs, *written_as(container), target.url),
        ],
        [*(source.fd for source in sources), target.fd],
        on_time=lambda done_s: reach(100 * done_s / total_s if total_s else 0),
    )
    if ended.exit_status:
        raise failure([source.given for source in sources], ended)


async def _stream_copied(
    sources: Sequence[OpenFile],
    facts: tuple[Sequence[Facts], Sequence[Video]],
    target: NewFile,
    container: Container,
    reach: Callable[[float], None],
) -> bool:
    """Join the clips by copying their pictures; return False if that was not possible, or failed."""
    clips, videos = facts
    if not (can_hold_copies(container) and are_candidates(sources, videos)):
        return False
    timelines = [await timeline(*pair) for pair in zip(sources, videos, strict=True)]
    copy = stream_copy_of(clips, videos[0].index, timelines, fps_of(videos[0]))
    if copy is None:
        return False
    sound = list[str]()
    with text_file(copy.script([source.url for source in sources]), "concat") as script:
        inputs = reading_script(script)
        if any(clip.audio is not None for clip in clips):
            inputs += [argument for source in sources for argument in reading(source)]
            graph = copied_sound_graph(clips, copy.lengths_s)
            sound = ["-filter_complex", graph, "-map", "[a]", *container.audio]
        total_s = float(sum(copy.lengths_s))
        ended = await run(
            [*inputs, *copy.copied(0), *sound, *written_as(container), target.url],
            [*(source.fd for source in [script, *sources]), target.fd],
            on_time=lambda done_s: reach(100 * done_s / total_s),
        )
    return not ended.exit_status and await copy.is_complete(target.reading(container.demuxer))


def written_as(container: Container) -> list[str]:
    """Return the options of an output in a container, without the inputs' titles and chapters."""
    return [*UNTITLED, *container.options, "-f", container.muxer]


def video_graph(clips: Sequence[Facts], videos: Sequence[Video]) -> str:
    """Return the filter graph from the inputs, in order, to ``[v]`` and, if one has sound, ``[a]``."""
    size, rate = even(videos[0].shown_size), fps_of(videos[0])
    has_sound = any(clip.audio is not None for clip in clips)
    chains, pads = [], []
    for number, (clip, video) in enumerate(zip(clips, videos, strict=True)):
        chains.append(f"{alike_picture(number, video, size, rate)}[v{number}]")
        pads.append(f"[v{number}]")
        if has_sound:
            chains.append(f"{_sound_of_clip(number, clip)}[a{number}]")
            pads.append(f"[a{number}]")
    ends = "[joined][a]" if has_sound else "[joined]"
    chains.append(f"{''.join(pads)}concat=n={len(clips)}:v=1:a={int(has_sound)}{ends}")
    # Where a clip's sound is longer than its picture, ``concat`` leaves a gap: repeat the last picture.
    chains.append(f"[joined]fps={rate}[v]")
    return ";".join(chains)


def alike_picture(number: int, video: Video, size: tuple[int, int], rate: Fraction) -> str:
    """Return the filters that give the pictures of an input the common form."""
    width, height, left, top = fit(video.shown_size, size)
    # The rate is set for each clip, from 0 on: a late first picture is repeated from 0.
    return (
        f"[{number}:{video.index}]scale={width}:{height},pad={size[0]}:{size[1]}:{left}:{top},"
        f"setsar=1,format=yuv420p,fps={rate}:start_time=0"
    )


def _sound_of_clip(number: int, clip: Facts) -> str:
    if clip.audio is None:
        return f"{_SILENCE},atrim=end={clip.duration_s or _SOME_SILENCE_S:.3f},{ALIKE_SOUND}"
    return f"[{number}:{clip.audio.index}]{ALIKE_SOUND}"


def copied_sound_graph(clips: Sequence[Facts], lengths_s: Sequence[Fraction]) -> str:
    """Return the filter graph from the clips' sounds, the inputs from the second on, to ``[a]``.

    Each is cut or padded to the length of its picture.
    """
    chains, pads = [], []
    for number, (clip, length_s) in enumerate(zip(clips, lengths_s, strict=True), 1):
        source = _SILENCE if clip.audio is None else f"[{number}:{clip.audio.index}]{ALIKE_SOUND},apad"
        chains.append(f"{source},atrim=end={float(length_s):.6f},{ALIKE_FORMAT}[a{number}]")
        pads.append(f"[a{number}]")
    return ";".join([*chains, f"{''.join(pads)}concat=n={len(clips)}:v=0:a=1[a]"])


def audio_graph(sounds: Sequence[Audio]) -> str:
    """Return the filter graph from the sounds of the inputs, in order, to ``[a]``."""
    chains = [f"[{number}:{sound.index}]{ALIKE_SOUND}[a{number}]" for number, sound in enumerate(sounds)]
    pads = "".join(f"[a{number}]" for number in range(len(sounds)))
    return ";".join([*chains, f"{pads}concat=n={len(sounds)}:v=0:a=1[a]"])


def even(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size rounded down to even numbers, which the encoders need."""
    return max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2)


def fit(size: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return width, height, left and top of a picture of ``size`` fitted into ``frame``, centred."""
    # Multiplied crosswise, in whole numbers: equal shapes must fill the frame exactly.
    if size[0] * frame[1] >= size[1] * frame[0]:
        fitted = frame[0], _nearest_even(size[1] * frame[0], size[0], frame[1])
    else:
        fitted = _nearest_even(size[0] * frame[1], size[1], frame[0]), frame[1]
    left, top = (frame[0] - fitted[0]) // 4 * 2, (frame[1] - fitted[1]) // 4 * 2
    return fitted[0], fitted[1], left, top


def _nearest_even(dividend: int, divisor: int, most: int) -> int:
    return min(most, max(2, round(dividend / divisor / 2) * 2))


def fps_of(video: Video) -> Fraction:
    """Return a constant rate for a video, close to its own."""
    printed = video.fps or video.base_fps
    if printed is None or not 1 <= printed <= _MAX_FPS:
        printed = video.base_fps
    if printed is None or not 1 <= printed <= _MAX_FPS:
        return _DEFAULT_FPS
    for rate in _TELEVISION_FPS:
        if abs(printed - rate) < 0.006:  # noqa: PLR2004 - two decimals are printed
            return rate
    return Fraction(printed).limit_denominator(100)
