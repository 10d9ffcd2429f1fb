"""The media operations on this machine: a caller gives names and gets facts."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Self, TypeVar

from beeq.jobs import MediaParameters
from beeq.media.assemble import assemble_video
from beeq.media.errors import MediaFailed, MediaRefused, shown
from beeq.media.ffmpeg import FFmpeg, MediaWork
from beeq.media.formats import (
    AUDIO_CONTAINERS,
    FILM_CONTAINERS,
    IMAGE_FORMATS,
    VIDEO_CONTAINERS,
    Container,
    ImageFormat,
)
from beeq.media.frames import extract_last_frame
from beeq.media.inputs.facts import file_facts, image_facts
from beeq.media.inputs.probe import probe
from beeq.media.mix import mix_with_music
from beeq.media.paths import MediaRoot, NewFile, OpenFile, Place
from beeq.media.stitch import stitch_audio, stitch_videos

#: Called with the part of the work that is done, in percent.
Reach = Callable[[float], None]
_Format = TypeVar("_Format", Container, ImageFormat)
#: Writes a target of a format from sources.
_Operation = Callable[[MediaWork, Sequence[OpenFile], NewFile, _Format], Awaitable[None]]
_PLAIN = MediaParameters()


class LocalMedia:
    """The operations by ffmpeg, on files under one folder. ``RemoteMedia`` has the same methods.

    Each returns the facts of the file it wrote, whose ``path`` is ``output_path`` as given. All raise
    ``MediaRefused`` if the call can never succeed, ``MediaFailed`` if another attempt may.

    The suffix of ``output_path`` chooses the format; missing folders are created. An existing file is
    replaced once the new one is complete; of several new ones, once all are complete. What is beyond the
    limits of ``ffmpeg`` is refused.
    """

    def __init__(self, root: MediaRoot, ffmpeg: FFmpeg) -> None:
        self._root = root
        self._ffmpeg = ffmpeg

    def in_project(self, folder: str) -> Self:
        """Return the operations on the files of one project, whose folder is below the root."""
        return type(self)(self._root.in_project(folder), self._ffmpeg)

    async def stitch_videos(
        self, input_files: Sequence[str], output_path: str, reach: Reach, parameters: MediaParameters = _PLAIN
    ) -> Any:
        """Join videos in order."""
        output = self._output(output_path, VIDEO_CONTAINERS)
        return await self._write(
            stitch_videos, input_files, output, MediaWork(self._ffmpeg, parameters, reach)
        )

    async def stitch_audio(
        self, input_files: Sequence[str], output_path: str, reach: Reach, parameters: MediaParameters = _PLAIN
    ) -> Any:
        """Join sounds in order."""
        output = self._output(output_path, AUDIO_CONTAINERS)
        return await self._write(
            stitch_audio, input_files, output, MediaWork(self._ffmpeg, parameters, reach)
        )

    async def mix_with_music(
        self,
        input_file: str,
        music_track: str,
        output_path: str,
        reach: Reach,
        parameters: MediaParameters = _PLAIN,
    ) -> Any:
        """Mix music into a video or a sound, whose length it keeps."""
        output = self._output(output_path, VIDEO_CONTAINERS | AUDIO_CONTAINERS)
        return await self._write(
            mix_with_music, [input_file, music_track], output, MediaWork(self._ffmpeg, parameters, reach)
        )

    async def extract_last_frame(
        self, input_file: str, output_path: str, reach: Reach, parameters: MediaParameters = _PLAIN
    ) -> Any:
        """Write the last picture of a video as an image."""
        output = self._output(output_path, IMAGE_FORMATS)
        return await self._write(
            extract_last_frame, [input_file], output, MediaWork(self._ffmpeg, parameters, reach)
        )

    async def assemble_video(
        self,
        scene_videos: Sequence[str],
        master_audio: str,
        output_formats: Sequence[str],
        output_name: str,
        reach: Reach,
        *,
        parameters: MediaParameters = _PLAIN,
    ) -> Any:
        """Join scenes in order, with a master in place of their sound; return each file's facts, by format.

        Each of the formats (``mp4``, ``webm``, ``mov``) is written to ``output_name``, a dot and the format.
        """
        for name in output_formats:
            if name not in FILM_CONTAINERS:
                raise MediaRefused(f"unknown format {shown(name)}; known are {', '.join(FILM_CONTAINERS)}")
        if not scene_videos or not output_formats:
            raise MediaRefused("there must be a scene to show and a format to write")
        places = {name: self._root.locate(f"{output_name}.{name}") for name in output_formats}
        with contextlib.ExitStack() as stack:
            *scenes, master = await self._opened(stack, [*scene_videos, master_audio])
            targets = {
                name: (stack.enter_context(self._root.creating(place)), FILM_CONTAINERS[name])
                for name, place in places.items()
            }
            work = MediaWork(self._ffmpeg, parameters, reach)
            await assemble_video(work, scenes, master, [*targets.values()])
            facts = {name: await _facts_of(self._ffmpeg, *target) for name, target in targets.items()}
            for target, _ in targets.values():
                target.publish()
            return facts

    async def _opened(self, stack: contextlib.ExitStack, names: Sequence[str]) -> list[OpenFile]:
        """Open the inputs until the stack ends."""
        files = list[OpenFile]()
        for name in names:
            files.append(stack.enter_context(self._root.reading(name)))
            # What a file is takes some milliseconds to find out at worst: others get their turn between two.
            await asyncio.sleep(0)
        return files

    def _output(self, given: str, formats: Mapping[str, _Format]) -> tuple[Place, _Format]:
        place = self._root.locate(given)
        suffix = PurePath(place.name).suffix.lower()
        if suffix not in formats:
            raise MediaRefused(f"{shown(given)} must end in one of {', '.join(formats)}")
        return place, formats[suffix]

    async def _write(
        self,
        operation: _Operation[_Format],
        input_files: Sequence[str],
        output: tuple[Place, _Format],
        work: MediaWork,
    ) -> dict[str, Any]:
        place, form = output
        with contextlib.ExitStack() as stack:
            sources = await self._opened(stack, input_files)
            target = stack.enter_context(self._root.creating(place))
            await operation(work, sources, target, form)
            facts = await _facts_of(self._ffmpeg, target, form)
            target.publish()
            return facts


async def _facts_of(ffmpeg: FFmpeg, target: NewFile, form: Container | ImageFormat) -> dict[str, Any]:
    written = target.reading(form.demuxer)
    if not written.size():
        raise MediaFailed(f"{shown(target.given)} came out empty")
    facts_of = image_facts if isinstance(form, ImageFormat) else file_facts
    return facts_of(written, await probe(ffmpeg, written))
