"""Joins scenes one after the other with one sound under them, and writes several containers at once.

Everything is decoded once, in one graph. Containers that hold the same codecs share one encoder, so
an mp4 and a mov cost as much as one of them; and none is needed where the scenes' pictures can be
joined as they are (``beeq.media.stream_copy``). The pictures decide the length: each scene lasts as long
as its picture, whatever its own sound does, and the master is cut or padded to their sum.
"""

from __future__ import annotations

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
from beeq.media.stream_copy import StreamCopy, are_candidates, reading_script, splice_of, takes
from beeq.media.timeline import Timeline, timeline

Target = tuple[NewFile, Container]
#: A container, and the word that ffmpeg has for the file to be written in it.
Output = tuple[Container, str]

#: The share of looking at the scenes before anything is written.
_SURVEY_PERCENT = 5.0
#: In a list of outputs these end a name or quote a part of it.
_SPECIAL_IN_LISTS = re.compile(r"([\\'|\[\]])")


@dataclass(frozen=True, slots=True)
class Scene:
    """The picture of one scene.

    Attributes:
        video: its stream.
        pictures: how many there are at the film's rate.
        is_exact: that number is sure. Else it is an estimate, from a file without presentation times.
    """

    video: Video
    pictures: int
    is_exact: bool = True


@dataclass(frozen=True, slots=True)
class Film:
    """What is shown at which rate, and which stream of the master is heard."""

    scenes: tuple[Scene, ...]
    rate: Fraction
    sound_index: int

    @property
    def length_s(self) -> float:
        """How long it is, in seconds."""
        return float(sum(scene.pictures for scene in self.scenes) / self.rate)


async def assemble_video(
    sources: Sequence[OpenFile],
    master: OpenFile,
    targets: Sequence[Target],
    reach: Callable[[float], None],
) -> None:
    """Write the scenes in order, with the sound of ``master`` in place of their own, to every target.

    Raises:
        MediaRefused: a scene has no picture, or the master no sound.
        MediaFailed: ffmpeg cannot read or write what it should.
    """
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
    copies = [target for target in targets if takes(target[1])]
    if copies and are_candidates(sources, videos):
        splice = splice_of(clips, videos[0].index, timelines, rate)
        if splice is not None and await _spliced(film, [master, *sources], targets, splice, reach):
            return
    ended = await _write(film, [master, *sources], targets, None, reach)
    if ended.exit_status:
        raise failure([source.given for source in [*sources, master]], ended)


async def _spliced(
    film: Film,
    inputs: Sequence[OpenFile],
    targets: Sequence[Target],
    splice: StreamCopy,
    reach: Callable[[float], None],
) -> bool:
    """Write the film without encoding its pictures where they can be copied; return whether it went well."""
    with text_file(splice.script([source.url for source in inputs[1:]]), "concat") as script:
        ended = await _write(film, inputs, targets, (splice, script), reach)
    copies = [target.reading(container.demuxer) for target, container in targets if takes(container)]
    return not ended.exit_status and all([await splice.holds(copy) for copy in copies])


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
    """Return what a scene adds to a film of ``rate``, from its packets and what its file says in seconds.

    Raises:
        MediaFailed: neither says how long it is.
    """
    times, duration_s = length
    if times is not None and times.is_timed:
        # A last picture of unknown duration is shown once.
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
    """Return what ffmpeg is to be told, once for all outputs.

    Args:
        film: what is to be written.
        inputs: the master and the scenes.
        outputs: where to.
        joined: how to join the scenes undecoded, for the outputs that can take them so.
    """
    groups = sharing_an_encoder(outputs)
    encoded = [group for group in groups if joined is None or not takes(group[0][0])]
    read = [argument for source in (inputs if encoded else inputs[:1]) for argument in reading(source)]
    graph = sound_chain(film, len(groups))
    if encoded:
        graph = f"{picture_chains(film, len(encoded))};{graph}"
    told = [*read, *(reading_script(joined[1]) if joined else ()), "-filter_complex", graph]
    for number, group in enumerate(groups):
        if joined is None or group in encoded:
            pictures = ["-map", f"[v{encoded.index(group)}]", *group[0][0].video]
        else:
            pictures = joined[0].copied(read.count("-i"))
        told += [*pictures, "-map", f"[a{number}]", *written(group)]
    return told


def picture_chains(film: Film, copies: int) -> str:
    """Return the filters from the inputs but the first, the scenes in order, to ``[v0]``, ``[v1]``, …."""
    size = even(film.scenes[0].video.shown_size)
    chains = []
    for number, scene in enumerate(film.scenes, 1):
        # Exactly as long as it was counted to be: the sound is cut to the sum.
        held = f",tpad=stop=-1:stop_mode=clone,trim=end_frame={scene.pictures}" if scene.is_exact else ""
        chains.append(f"{alike_picture(number, scene.video, size, film.rate)}{held}[s{number}]")
    scenes = "".join(f"[s{number}]" for number in range(1, len(film.scenes) + 1))
    # Joining keeps microseconds; the encoders are to count in pictures again.
    joined = f"concat=n={len(film.scenes)}:v=1:a=0,settb={1 / film.rate},split={copies}"
    return ";".join([*chains, scenes + joined + "".join(f"[v{number}]" for number in range(copies))])


def sound_chain(film: Film, copies: int) -> str:
    """Return the filters from the first input, the master, to ``[a0]``, ``[a1]``, …."""
    cut = f"[0:{film.sound_index}]{ALIKE_SOUND},apad,atrim=end={film.length_s:.6f},asplit={copies}"
    return cut + "".join(f"[a{number}]" for number in range(copies))


def sharing_an_encoder(outputs: Sequence[Output]) -> list[list[Output]]:
    """Return the outputs in groups whose containers hold the same."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Output]] = {}
    for container, url in outputs:
        groups.setdefault((container.video, container.audio), []).append((container, url))
    return list(groups.values())


def written(group: Sequence[Output]) -> list[str]:
    """Return the arguments that encode a sound once, and write it and a picture to a whole group."""
    container, url = group[0]
    if len(group) == 1:
        return [*container.audio, *written_as(container), url]
    return [
        *container.audio,
        # What a single output of these containers asks its encoders for; a list does not.
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
