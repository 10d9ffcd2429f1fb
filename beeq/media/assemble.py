"""Joins scenes one after the other with one sound under them, and writes several containers at once.

Everything is decoded once, in one graph. Containers that hold the same codecs share one encoder, so
an mp4 and a mov cost as much as one of them; and none is needed where the scenes' pictures can be
joined as they are (``beeq.media.splice``). The pictures decide the length: each scene lasts as long
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
from beeq.media.packets import Timeline, timeline
from beeq.media.paths import NewFile, OpenFile, text_file
from beeq.media.probe import Video, picture_of, probe, sound_of
from beeq.media.splice import Splice, are_candidates, reading_script, splice_of
from beeq.media.stitch import ALIKE_SOUND, UNTITLED, alike_picture, even, fps_of, written_as

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
    copying = [target for target in targets if are_candidates(sources, videos, target[1])]
    splice = splice_of(clips, videos[0].index, timelines, rate) if copying else None
    if splice is not None:
        ended = await _write(film, [master, *sources], targets, reach, splice)
        if not ended.exit_status and await _hold(splice, copying):
            return
    ended = await _write(film, [master, *sources], targets, reach)
    if ended.exit_status:
        raise failure([source.given for source in [*sources, master]], ended)


async def _write(
    film: Film,
    inputs: Sequence[OpenFile],
    targets: Sequence[Target],
    reach: Callable[[float], None],
    splice: Splice | None = None,
) -> Run:
    """Write the film; the first of the inputs is the master."""
    percent_a_second = (100 - _SURVEY_PERCENT) / film.length_s
    names = [source.url for source in inputs[1:]]
    with text_file("" if splice is None else splice.script(names), "concat") as script:
        return await run(
            arguments(film, inputs, [(container, target.url) for target, container in targets], splice, script),
            [
                *(source.fd for source in inputs),
                *(target.fd for target, _ in targets),
                *([] if script is None else [script.fd]),
            ],
            on_time=lambda done_s: reach(_SURVEY_PERCENT + percent_a_second * done_s),
        )
