"""The media operations as their callers see them, and their work on this machine.

A caller gives names and gets facts. ``beeq.media.remote`` has the same face over HTTP.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from beeq.media.assemble import assemble_video
from beeq.media.errors import MediaFailed, MediaRefused, shown
from beeq.media.formats import (
    AUDIO_CONTAINERS,
    FILM_CONTAINERS,
    IMAGE_FORMATS,
    VIDEO_CONTAINERS,
    Container,
)
from beeq.media.frames import extract_last_frame
from beeq.media.mix import mix_with_music
from beeq.media.paths import MediaRoot, NewFile, Place
from beeq.media.probe import file_facts, image_facts, probe
from beeq.media.stitch import stitch_audio, stitch_videos

#: Told how far the work is, in percent.
Reach = Callable[[float], None]
_Format = TypeVar("_Format")


class MediaService(Protocol):
    """What does media work.

    Every operation returns the facts of the file it wrote, whose ``path`` is ``output_path`` as
    given; ``assemble_video`` returns those of each of its files, by format. All raise ``MediaRefused``
    if the call can never succeed, ``MediaFailed`` if it may.
    """

    async def stitch_videos(self, input_files: Sequence[str], output_path: str, reach: Reach) -> Any:
        """Join videos in order."""

    async def stitch_audio(self, input_files: Sequence[str], output_path: str, reach: Reach) -> Any:
        """Join sounds in order."""

    async def mix_with_music(self, input_file: str, music_track: str, output_path: str, reach: Reach) -> Any:
        """Lay music under a video or a sound, which decides the length."""

    async def extract_last_frame(self, input_file: str, output_path: str, reach: Reach) -> Any:
        """Write the last picture of a video as an image."""

    async def assemble_video(
        self,
        scene_videos: Sequence[str],
        master_audio: str,
        output_formats: Sequence[str],
        output_name: str,
        reach: Reach,
    ) -> Any:
        """Join scenes in order, with a master in place of their sound.

        Each of the formats (``mp4``, ``webm``, ``mov``) is written to ``output_name``, a dot and the format.
        """


class LocalMedia:
    """Does it with ffmpeg, on files under one folder. See ``MediaService``.

    The suffix of ``output_path`` chooses the format; folders on the way to it are made; a file that
    is there already is replaced when the new one is complete, and not before. Where several are
    written, none is before all are complete.
    """

    def __init__(self, root: Path) -> None:
        self._root = MediaRoot(root)

    async def stitch_videos(self, input_files: Sequence[str], output_path: str, reach: Reach) -> Any:
        """Join videos in order."""
        place, container = self._output(output_path, VIDEO_CONTAINERS)
        with contextlib.ExitStack() as stack:
            sources = [stack.enter_context(self._root.reading(name)) for name in input_files]
            target = stack.enter_context(self._root.creating(place))
            await stitch_videos(sources, target, container, reach)
            return await _published(target, container)

    async def stitch_audio(self, input_files: Sequence[str], output_path: str, reach: Reach) -> Any:
        """Join sounds in order."""
        place, container = self._output(output_path, AUDIO_CONTAINERS)
        with contextlib.ExitStack() as stack:
            sources = [stack.enter_context(self._root.reading(name)) for name in input_files]
            target = stack.enter_context(self._root.creating(place))
            await stitch_audio(sources, target, container, reach)
            return await _published(target, container)

    async def mix_with_music(self, input_file: str, music_track: str, output_path: str, reach: Reach) -> Any:
        """Lay music under a video or a sound, which decides the length."""
        place, container = self._output(output_path, VIDEO_CONTAINERS | AUDIO_CONTAINERS)
        with (
            self._root.reading(input_file) as source,
            self._root.reading(music_track) as music,
            self._root.creating(place) as target,
        ):
            await mix_with_music((source, music), target, container, reach)
            return await _published(target, container)

    async def extract_last_frame(self, input_file: str, output_path: str, reach: Reach) -> Any:
        """Write the last picture of a video as an image."""
        place, image = self._output(output_path, IMAGE_FORMATS)
        with self._root.reading(input_file) as source, self._root.creating(place) as target:
            await extract_last_frame(source, target, image, reach)
            written = target.reading(image.demuxer)
            facts = image_facts(written, await probe(written))
            target.publish()
            return facts

    async def assemble_video(
        self,
        scene_videos: Sequence[str],
        master_audio: str,
        output_formats: Sequence[str],
        output_name: str,
        reach: Reach,
    ) -> Any:
        """Join scenes in order, with a master in place of their sound."""
        for name in output_formats:
            if name not in FILM_CONTAINERS:
                raise MediaRefused(f"unknown format {shown(name)}; known are {', '.join(FILM_CONTAINERS)}")
        if not scene_videos or not output_formats:
            raise MediaRefused("there must be a scene to show and a format to write")
        places = {name: self._root.locate(f"{output_name}.{name}") for name in output_formats}
        with contextlib.ExitStack() as stack:
            scenes = [stack.enter_context(self._root.reading(name)) for name in scene_videos]
            master = stack.enter_context(self._root.reading(master_audio))
            targets = {
                name: (stack.enter_context(self._root.creating(place)), FILM_CONTAINERS[name])
                for name, place in places.items()
            }
            await assemble_video(scenes, master, [*targets.values()], reach)
            facts = {name: await _facts_of_complete(*target) for name, target in targets.items()}
            for target, _ in targets.values():
                target.publish()
            return facts

    def _output(self, given: str, formats: Mapping[str, _Format]) -> tuple[Place, _Format]:
        place = self._root.locate(given)
        if place.suffix not in formats:
            raise MediaRefused(f"{shown(given)} must end in one of {', '.join(formats)}")
        return place, formats[place.suffix]


async def _published(target: NewFile, container: Container) -> dict[str, Any]:
    """Return the facts of a complete file, once it is in its place."""
    facts = await _facts_of_complete(target, container)
    target.publish()
    return facts


async def _facts_of_complete(target: NewFile, container: Container) -> dict[str, Any]:
    written = target.reading(container.demuxer)
    if not written.size():
        raise MediaFailed(f"{shown(target.given)} came out empty")
    return file_facts(written, await probe(written))
