"""Joins scenes one after the other, with one master sound, and writes several containers at once.

Everything is decoded once, in one graph. Containers with the same codecs share one encoder, so an mp4
and a mov cost as much as one of them; no video encoder is needed where the scenes' pictures can be copied
(``beeq.media.stream_copy``). The pictures decide the length: a scene lasts as long as its picture, however
long its own sound is, and the master is cut or padded to the sum of the scenes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from beeq.media.errors import MediaFailed, shown
from beeq.media.ffmpeg import UNTITLED, FFmpeg, MediaWork, Run
from beeq.media.formats import Container
from beeq.media.inputs.bounds import check_output, check_said, check_sum, decoder_threads
from beeq.media.inputs.examine import examine, examine_all
from beeq.media.inputs.facts import Audio, Facts, Video, picture_of, sound_of
from beeq.media.outputs.colours import TAGGED, decoded_by
from beeq.media.outputs.film import Look, alike, look_of
from beeq.media.outputs.motion import pictures_of
from beeq.media.paths import NewFile, OpenFile, text_file
from beeq.media.sound import alike_sound, lasting
from beeq.media.stitch import written_as
from beeq.media.stream_copy import StreamCopy, are_candidates, can_hold_copies, reading_script, stream_copy_of

Target = tuple[NewFile, Container]
#: A container, and ffmpeg's URL of the file to be written in it.
Output = tuple[Container, str]

#: The share of reading the scenes in the progress.
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
    """The scenes, their common look, and the master's audio stream."""

    scenes: tuple[Scene, ...]
    look: Look
    sound: Audio

    @property
    def length_s(self) -> float:
        """The length in seconds."""
        return float(sum(scene.pictures for scene in self.scenes) / self.look.rate)


async def assemble_video(
    work: MediaWork, sources: Sequence[OpenFile], master: OpenFile, targets: Sequence[Target]
) -> None:
    """Write the scenes in order, with the sound of ``master`` in place of their own, to every target."""
    ffmpeg, parameters = work.ffmpeg, work.parameters
    sound = sound_of(master, await examine(ffmpeg, master, parameters))
    clips = await examine_all(
        ffmpeg, sources, parameters, lambda percent: work.reach(_SURVEY_PERCENT / 100 * percent)
    )
    videos = [picture_of(source, clip) for source, clip in zip(sources, clips, strict=True)]
    check_sum(ffmpeg.limits, videos)
    look = look_of(videos, parameters)
    scenes = [
        scene_of(source, video, clip, (look.rate, parameters.still_seconds))
        for source, video, clip in zip(sources, videos, clips, strict=True)
    ]
    film = Film(tuple(scenes), look, sound)
    check_output(ffmpeg.limits, film.length_s)
    if any(can_hold_copies(container) for _, container in targets) and are_candidates(sources, videos):
        copy = stream_copy_of(clips, videos, look.rate)
        if copy is not None and await _stream_copied(work, film, [master, *sources], targets, copy):
            return
    ended = await _write(work, film, [master, *sources], targets, None)
    names = [source.given for source in [master, *sources]]
    check_said(ffmpeg.limits, names, ended)
    if ended.exit_status:
        raise ffmpeg.failure(names, ended)


async def _stream_copied(
    work: MediaWork, film: Film, inputs: Sequence[OpenFile], targets: Sequence[Target], copy: StreamCopy
) -> bool:
    """Write the film, copying its pictures where a container allows it; return whether that succeeded."""
    with text_file(copy.script([source.url for source in inputs[1:]]), "concat") as script:
        ended = await _write(work, film, inputs, targets, (copy, script))
    files = [target.reading(container.demuxer) for target, container in targets if can_hold_copies(container)]
    return not ended.exit_status and all([await copy.is_complete(work.ffmpeg, file) for file in files])


async def _write(
    work: MediaWork,
    film: Film,
    inputs: Sequence[OpenFile],
    targets: Sequence[Target],
    joined: tuple[StreamCopy, OpenFile] | None,
) -> Run:
    outputs = [(container, target.url) for target, container in targets]
    percent_a_second = (100 - _SURVEY_PERCENT) / film.length_s
    return await work.ffmpeg.run(
        arguments(work.ffmpeg, film, inputs, outputs, joined),
        [
            *(source.fd for source in [*inputs, *(joined[1:] if joined else ())]),
            *(target.fd for target, _ in targets),
        ],
        on_time=lambda done_s: work.reach(_SURVEY_PERCENT + percent_a_second * done_s),
        media_s=film.length_s * len(targets),
    )


def scene_of(source: OpenFile, video: Video, clip: Facts, chosen: tuple[Fraction, float]) -> Scene:
    """Return a scene of a film, its length by its timeline, else by its file's duration.

    Chosen are the film's pictures a second, and the seconds that a still is shown.
    """
    rate, still_s = chosen
    if video.is_still:
        return Scene(video, max(1, round(still_s * rate)))
    times = video.timeline
    pictures = pictures_of(video, rate)
    if pictures is not None:
        return Scene(video, pictures)
    estimate_s = clip.duration_s if times is None else times.end_s - times.begin_s
    if not estimate_s:
        raise MediaFailed(f"{shown(source.given)} does not say how long it is")
    return Scene(video, max(1, round(estimate_s * rate)), is_exact=False)


def arguments(
    ffmpeg: FFmpeg,
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
    read = ffmpeg.reading(inputs[0])
    if encoded:
        threads = decoder_threads(ffmpeg.limits, [scene.video for scene in film.scenes])
        for source, scene in zip(inputs[1:], film.scenes, strict=True):
            read += ffmpeg.reading(source, *decoded_by(scene.video), threads=threads)
    graph = sound_chain(film, len(groups))
    if encoded:
        graph = f"{picture_chains(film, len(encoded))};{graph}"
    found = [*read, *(reading_script(ffmpeg, joined[1]) if joined else ()), "-filter_complex", graph]
    for number, group in enumerate(groups):
        if joined is None or group in encoded:
            pictures = ["-map", f"[v{encoded.index(group)}]", *group[0][0].encoder(film.look.size)]
        else:
            pictures = joined[0].copied(read.count("-i"))
        found += [*pictures, "-map", f"[a{number}]", *written(ffmpeg, group)]
    return found


def picture_chains(film: Film, copies: int) -> str:
    """Return the filters from the scenes, the inputs from the second on, to ``[v0]``, ``[v1]``, …."""
    chains = []
    for number, scene in enumerate(film.scenes, 1):
        # As many pictures as were counted: the sound is cut to their sum.
        held = scene.pictures if scene.is_exact else None
        chains.append(f"[{number}:{scene.video.index}]{alike(scene.video, film.look, held)}[s{number}]")
    scenes = "".join(f"[s{number}]" for number in range(1, len(film.scenes) + 1))
    # ``concat`` counts in microseconds, and takes a single picture for none at all: those that were counted
    # get their places again. The encoders get a time base of one picture.
    placed = ",setpts=N" if all(scene.is_exact for scene in film.scenes) else ""
    joined = f"concat=n={len(film.scenes)}:v=1:a=0,settb={1 / film.look.rate}{placed},{TAGGED},split={copies}"
    return ";".join([*chains, scenes + joined + "".join(f"[v{number}]" for number in range(copies))])


def sound_chain(film: Film, copies: int) -> str:
    """Return the filters from the first input, the master, to ``[a0]``, ``[a1]``, …."""
    sound = f"[0:{film.sound.index}]{alike_sound(film.sound)},{lasting(film.length_s)},asplit={copies}"
    return sound + "".join(f"[a{number}]" for number in range(copies))


def sharing_an_encoder(outputs: Sequence[Output]) -> list[list[Output]]:
    """Return the outputs in groups whose containers hold the same codecs."""
    groups: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Output]] = {}
    for container, url in outputs:
        groups.setdefault((container.video, container.audio), []).append((container, url))
    return list(groups.values())


def written(ffmpeg: FFmpeg, group: Sequence[Output]) -> list[str]:
    """Return the arguments that encode a sound once, and write it and the pictures to all of a group."""
    container, url = group[0]
    if len(group) == 1:
        return [*container.audio, *written_as(ffmpeg, container), url]
    return [
        *container.audio,
        # The muxers of these containers ask their encoders for this, but ``tee`` does not pass it on.
        *("-flags", "+global_header"),
        # Older versions would move the beginning to make room for pictures stored out of order.
        *("-avoid_negative_ts", "disabled"),
        *(*UNTITLED, *ffmpeg.encoding(), "-f", "tee"),
        "|".join(_in_list(container, url) for container, url in group),
    ]


def _in_list(container: Container, url: str) -> str:
    options = [f"f={container.muxer}"]
    for name, value in zip(container.options[::2], container.options[1::2], strict=True):
        options.append(f"{name.removeprefix('-')}={value}")
    escaped = _SPECIAL_IN_LISTS.sub(r"\\\1", url)
    return f"[{':'.join(options)}]{escaped}"
