"""Joins clips of any sizes, rates and codecs one after the other.

Pictures that are alike already are copied (``beeq.media.stream_copy``). Otherwise one filter graph makes
all clips alike: pictures as ``beeq.media.outputs`` says, sound of 48 kHz stereo, silence where a clip has no
sound. A clip lasts as long as the longer of its picture and its sound; a still is a clip of a length that the
job chooses.
"""

from collections.abc import Sequence

from beeq.media.ffmpeg import UNTITLED, FFmpeg, MediaWork
from beeq.media.formats import Container
from beeq.media.inputs.bounds import check_output, check_said, check_sum, decoder_threads
from beeq.media.inputs.examine import examine_all
from beeq.media.inputs.facts import Facts, Video, own_sound_of, picture_of, sound_of
from beeq.media.outputs.colours import TAGGED, decoded_by
from beeq.media.outputs.film import Look, alike, look_of, pictures_of_clip
from beeq.media.paths import NewFile, OpenFile, text_file
from beeq.media.sound import audio_graph, copied_sound_graph, sound_of_clip
from beeq.media.stream_copy import are_candidates, can_hold_copies, reading_script, stream_copy_of


async def stitch_videos(
    work: MediaWork, sources: Sequence[OpenFile], target: NewFile, container: Container
) -> None:
    """Write the clips in order, with sound if any of them has some."""
    ffmpeg, parameters = work.ffmpeg, work.parameters
    clips = await examine_all(ffmpeg, sources, parameters)
    videos = [picture_of(source, facts) for source, facts in zip(sources, clips, strict=True)]
    for source, facts in zip(sources, clips, strict=True):
        own_sound_of(source, facts)
    check_sum(ffmpeg.limits, videos)
    look = look_of(videos, parameters)
    if await _stream_copied(work, sources, (clips, videos, look), target, container):
        return
    outputs = ["-map", "[v]", *container.encoder(look.size)]
    if any(clip.audio is not None for clip in clips):
        outputs += ["-map", "[a]", *container.audio]
    counts = [
        pictures_of_clip(clip, video, look, parameters.still_seconds)
        for clip, video in zip(clips, videos, strict=True)
    ]
    lengths_s = [
        clip.duration_s or 0 if count is None else float(count / look.rate)
        for clip, count in zip(clips, counts, strict=True)
    ]
    check_output(ffmpeg.limits, sum(lengths_s))
    threads = decoder_threads(ffmpeg.limits, videos)
    inputs = [
        ffmpeg.reading(source, *decoded_by(video), threads=threads)
        for source, video in zip(sources, videos, strict=True)
    ]
    plan = (inputs, video_graph(clips, videos, look, counts), outputs)
    await _join((work, sum(lengths_s)), sources, plan, target, container)


async def stitch_audio(
    work: MediaWork, sources: Sequence[OpenFile], target: NewFile, container: Container
) -> None:
    """Write the sounds of the files in order."""
    clips = await examine_all(work.ffmpeg, sources, work.parameters)
    sounds = [sound_of(source, facts) for source, facts in zip(sources, clips, strict=True)]
    length_s = sum(clip.duration_s or 0 for clip in clips)
    check_output(work.ffmpeg.limits, length_s)
    inputs = [work.ffmpeg.reading(source) for source in sources]
    plan = (inputs, audio_graph(sounds), ["-map", "[a]", *container.audio])
    await _join((work, length_s), sources, plan, target, container)


async def _join(
    task: tuple[MediaWork, float],
    sources: Sequence[OpenFile],
    plan: tuple[list[list[str]], str, list[str]],
    target: NewFile,
    container: Container,
) -> None:
    (inputs, graph, outputs), (work, total_s) = plan, task
    ffmpeg = work.ffmpeg
    ended = await ffmpeg.run(
        [
            *(argument for given in inputs for argument in given),
            *("-filter_complex", graph, *outputs, *written_as(ffmpeg, container), target.url),
        ],
        [*(source.fd for source in sources), target.fd],
        on_time=lambda done_s: work.reach(100 * done_s / total_s if total_s else 0),
        media_s=total_s or None,
    )
    names = [source.given for source in sources]
    check_said(ffmpeg.limits, names, ended)
    if ended.exit_status:
        raise ffmpeg.failure(names, ended)


async def _stream_copied(
    work: MediaWork,
    sources: Sequence[OpenFile],
    facts: tuple[Sequence[Facts], Sequence[Video], Look],
    target: NewFile,
    container: Container,
) -> bool:
    """Join the clips by copying their pictures; return False if that was not possible, or failed."""
    (clips, videos, look), ffmpeg = facts, work.ffmpeg
    if not (can_hold_copies(container) and are_candidates(sources, videos)):
        return False
    copy = stream_copy_of(clips, videos, look.rate)
    if copy is None:
        return False
    sound = list[str]()
    with text_file(copy.script([source.url for source in sources]), "concat") as script:
        inputs = reading_script(ffmpeg, script)
        if any(clip.audio is not None for clip in clips):
            inputs += [argument for source in sources for argument in ffmpeg.reading(source)]
            graph = copied_sound_graph(clips, videos, copy.lengths_s)
            sound = ["-filter_complex", graph, "-map", "[a]", *container.audio]
        total_s = float(sum(copy.lengths_s))
        check_output(ffmpeg.limits, total_s)
        ended = await ffmpeg.run(
            [*inputs, *copy.copied(0), *sound, *written_as(ffmpeg, container), target.url],
            [*(source.fd for source in [script, *sources]), target.fd],
            on_time=lambda done_s: work.reach(100 * done_s / total_s),
            media_s=total_s,
        )
    return not ended.exit_status and await copy.is_complete(ffmpeg, target.reading(container.demuxer))


def written_as(ffmpeg: FFmpeg, container: Container) -> list[str]:
    """Return the options of an output in a container, without the inputs' titles and chapters."""
    return [*UNTITLED, *ffmpeg.encoding(), *container.options, "-f", container.muxer]


def video_graph(
    clips: Sequence[Facts], videos: Sequence[Video], look: Look, counts: Sequence[int | None]
) -> str:
    """Return the filter graph from the inputs, in order, to ``[v]`` and, if one has sound, ``[a]``.

    A clip lasts as long as its number of pictures in ``counts``; with None, as long as what it holds.
    """
    has_sound = any(clip.audio is not None for clip in clips)
    chains, pads = [], []
    for number, (clip, video, count) in enumerate(zip(clips, videos, counts, strict=True)):
        chains.append(f"[{number}:{video.index}]{alike(video, look, count)}[v{number}]")
        pads.append(f"[v{number}]")
        if has_sound:
            length_s = None if count is None else count / look.rate
            chains.append(f"{sound_of_clip(number, clip, video, length_s)}[a{number}]")
            pads.append(f"[a{number}]")
    ends = "[joined][a]" if has_sound else "[joined]"
    chains.append(f"{''.join(pads)}concat=n={len(clips)}:v=1:a={int(has_sound)}{ends}")
    # ``concat`` counts in microseconds, and takes a single picture for none at all: those that were counted
    # get their places again. Else it leaves a gap where a sound is longer than its picture.
    is_counted = all(count is not None for count in counts)
    even_pace = f"settb={1 / look.rate},setpts=N" if is_counted else f"fps={look.rate}"
    chains.append(f"[joined]{even_pace},{TAGGED}[v]")
    return ";".join(chains)
