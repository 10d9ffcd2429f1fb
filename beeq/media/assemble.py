"""Joins scenes one after the other, with one master sound, and writes several containers at once.

Everything is decoded once, in one graph. Containers with the same codecs share one encoder, so an mp4
and a mov cost as much as one of them; no video encoder is needed where the scenes' pictures can be copied
(``beeq.media.stream_copy``). The pictures decide the length: a scene lasts as long as its picture, however
long its own sound is, and the master is cut or padded to the sum of the scenes.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from beeq.media.errors import MediaFailed, shown
from beeq.media.ffmpeg import Run, failure, reading, run
from beeq.media.formats import Container
from beeq.media.paths import NewFile, OpenFile, text_file
from beeq.media.probe import Video, picture_of, probe, sound_of
from beeq.media.stitch import ALIKE_SOUND, UNTITLED, alike_picture, even, fps_of, written_as
from beeq.media.stream_copy import StreamCopy, are_candidates, can_hold_copies, reading_script, stream_copy_of
from beeq.media.timeline import Timeline, timeline

Target = tuple[NewFile, Container]
#: A container, and ffmpeg's URL of the file to be written in it.
Output = tuple[Container, str]

#: The share of reading the scenes' timelines in the progress.
_SURVEY_PERCENT = 5.0
#: Characters that the ``tee`` muxer's list of outputs gives a meaning.
_SPECIAL_IN_LISTS = re.compile(r"([\\'|\[\]])")


@dataclass(frozen=True, slots=True)
class Scene:
    """The picture of one scene: its stream, and the number of pictures at the film's rate.

    That number is an estimate, not counted (``is_exact``), if the file has no presentation times.
    """

    video: Video
    pictures: int
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class Film:
    """The scenes, their common rate, and the index of the master's audio stream."""

    scenes: tuple[Scene, ...]
    rate: Fraction
    sound_index: int

    @property
    def length_s(self) -> float:
        """The length in seconds."""
        return float(sum(scene.pictures for scene in self.scenes) / self.rate)


async def assemble_video(
    sources: Sequence[OpenFile], master: OpenFile, targets: Sequence[Target], reach: Callable[[float], None]
) -> None:
    """Write the scenes in order, with the sound of ``master`` in place of their own, to every target."""
    sound = sound_of(master, await probe(master))
    clips = [await probe(source) for source in sources]
    videos = [picture_of(source, clip) for source, clip in zip(sources, clips, strict=True)]
    rate, timelines = fps_of(videos[0]), list[Timeline | None]()
    for source, video in zip(sources, videos, strict=True):
        timelines.append(await timeline(source, video))
        reach(_SURVEY_PERCENT * len(timelines) / len(sources))
    lengths = [(times, clip.duration_s) for times, clip in zip(timelines, clips, strict=True)]
    scenes = [scene_of(*scene, rate) for scene in zip(sources, videos, lengths, strict=True)]
    film = Film(tuple(scenes), rate, sound.index)
    if any(can_hold_copies(container) for _, container in targets) and are_candidates(sources, videos):
        copy = stream_copy_of(clips, videos[0].index, timelines, rate)
        if copy is not None and await _stream_copied(film, [master, *sources], targets, copy, reach):
            return
    ended = await _write(film, [master, *sources], targets, None, reach)
    if ended.exit_status:
        raise failure([source.given for source in [*sources, master]], ended)


async def _stream_copied(
    film: Film,
    inputs: Sequence[OpenFile],
    targets: Sequence[Target],
    copy: StreamCopy,
    reach: Callable[[float], None],
) -> bool:
    """Write the film, copying its pictures where a container allows it; return whether that succeeded."""
    with text_file(copy.script([source.url for source in inputs[1:]]), "concat") as script:
        ended = await _write(film, inputs, targets, (copy, script), reach)
    files = [target.reading(container.demuxer) for target, container in targets if can_hold_copies(container)]
    return not ended.exit_status and all([await copy.is_complete(file) for file in files])


async def _write(
    film: Film,
    inputs: Sequence[OpenFile],
    targets: Sequence[Target],
    joined: tuple[StreamCopy, OpenFile] | None,
    reach: Callable[[float], None],
) -> Run:
    outputs = [(container, target.url) for target, container in targets]
    percent_a_second = (100 - _SURVEY_PERCENT) / film.length_s
    return await run(
        arguments(film, inputs, outputs, joined),
        [
            *(source.fd for source in [*inputs, *(joined[1:] if joined else ())]),
            *(target.fd for target, _ in targets),
        ],
        on_time=lambda done_s: reach(_SURVEY_PERCENT + percent_a_second * done_s),
    )


def scene_of(
    source: OpenFile, video: Video, length: tuple[Timeline | None, float | None], rate: Fraction
) -> Scene:
    """Return a scene of a film of ``rate``, its length by its timeline, else by its file's duration."""
    times, duration_s = length
    if times is not None and times.is_timed:
        # A last picture without a duration is shown once.
        is_known = times.end_s > times.last_s
        pictures = round(times.end_s * rate) if is_known else round(times.last_s * rate) + 1
        return Scene(video, max(1, pictures))
    estimate_s = duration_s if times is None else times.end_s - times.begin_s
    if not estimate_s:
        raise MediaFailed(f"{shown(source.given)} does not say how long it is")
    return Scene(video, max(1, round(estimate_s * rate)), is_exact=False)


def arguments(
    film: Film,
    inputs: Sequence[OpenFile],
    outputs: Sequence[Output],
    joined: tuple[StreamCopy, OpenFile] | None = None,
) -> list[str]:
    """Return ffmpeg's arguments, for all outputs together; ``inputs`` are the master, then the scenes.

    ``joined`` is how to copy the scenes' pictures, and its script, for the outputs that can hold copies.
    """
    groups = sharing_an_encoder(outputs)
    encoded = [group for group in groups if joined is None or not can_hold_copies(group[0][0])]
    read = [argument for source in (inputs if encoded else inputs[:1]) for argument in reading(source)]
    graph = sound_chain(film, len(groups))
    if encoded:
        graph = f"{picture_chains(film, len(encoded))};{graph}"
    found = [*read, *(reading_script(joined[1]) if joined else ()), "-filter_complex", graph]
    for number, group in enumerate(groups):
        if joined is None or group in encoded:
            pictures = ["-map", f"[v{encoded.index(group)}]", *group[0][0].video]
        else:
            pictures = joined[0].copied(read.count("-i"))
        found += [*pictures, "-map", f"[a{number}]", *written(group)]
    return found


def picture_chains(film: Film, copies: int) -> str:
    """Return the filters from the scenes, the inputs from the second on, to ``[v0]``, ``[v1]``, …."""
    size = even(film.scenes[0].video.shown_size)
    chains = []
    for number, scene in enumerate(film.scenes, 1):
        # As many pictures as were counted: the sound is cut to their sum.
        held = f",tpad=stop=-1:stop_mode=clone,trim=end_frame={scene.pictures}" if scene.is_exact else ""
        chains.append(f"{alike_picture(number, scene.video, size, film.rate)}{held}[s{number}]")
    scenes = "".join(f"[s{number}]" for number in range(1, len(film.scenes) + 1))
    # ``concat`` counts in microseconds; the encoders get a time base of one picture again.
    joined = f"concat=n={len(film.scenes)}:v=1:a=0,settb={1 / film.rate},split={copies}"
    return ";".join([*chains, scenes + joined + "".join(f"[v{number}]" for number in range(copies))])


def sound_chain(film: Film, copies: int) -> str:
    """Return the filters from the first input, the master, to ``[a0]``, ``[a1]``, …."""
    cut = f"[0:{film.sound_index}]{ALIKE_SOUND},apad,atrim=end={film.length_s:.6f},asplit={copies}"
    return cut + "".join(f"[a{number}]" for number in range(copies))


def sharing_an_encoder(outputs: Sequence[Output]) -> list[list[Output]]:
    """Return the outputs in groups whose containers hold the same codecs."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Output]] = {}
    for container, url in outputs:
        groups.setdefault((container.video, container.audio), []).append((container, url))
    return list(groups.values())


def written(group: Sequence[Output]) -> list[str]:
    """Return the arguments that encode a sound once, and write it and the pictures to all of a group."""
    container, url = group[0]
    if len(group) == 1:
        return [*container.audio, *written_as(container), url]
    return [
        *container.audio,
        # The muxers of these containers ask their encoders for this, but ``tee`` does not pass it on.
        *("-flags", "+global_header"),
        # Older versions would move the beginning to make room for pictures stored out of order.
        *("-avoid_negative_ts", "disabled"),
        *(*UNTITLED, "-f", "tee"),
        "|".join(_in_list(container, url) for container, url in group),
    ]


def _in_list(container: Container, url: str) -> str:
    options = [f"f={container.muxer}"]
    for name, value in zip(container.options[::2], container.options[1::2], strict=True):
        options.append(f"{name.removeprefix('-')}={value}")
    escaped = _SPECIAL_IN_LISTS.sub(r"\\\1", url)
    return f"[{':'.join(options)}]{escaped}"
