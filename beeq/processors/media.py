"""The processor of ``media-processing``: one operation on media files, by the job's type."""

from __future__ import annotations

from typing import Any

from beeq.errors import Discard
from beeq.job import RunningJob
from beeq.jobs import MediaProcessingJob
from beeq.media.errors import MediaRefused
from beeq.media.remote import RemoteMedia
from beeq.media.service import LocalMedia, MediaService, Reach
from beeq.processors.base import Processor, ProcessorSettings, Progress


def media_of(settings: ProcessorSettings) -> MediaService:
    """Return the service for the settings: ffmpeg on this machine, or a remote one."""
    if settings.media_url is None:
        return LocalMedia(settings.media_root)
    return RemoteMedia(settings.media_url)


class MediaProcessor(Processor[MediaProcessingJob]):
    """Stitches, mixes and extracts frames, by ffmpeg under the media root or by a remote service.

    A result's ``path`` is the job's ``outputPath`` as given.
    """

    queue_name = "media-processing"

    def __init__(self, settings: ProcessorSettings) -> None:
        self._media = media_of(settings)

    async def perform(self, job: RunningJob, data: MediaProcessingJob) -> Any:
        """Do the job's operation and return the facts of its file.

        Raises:
            Discard: a path is not allowed, or a file is not usable.
            MediaFailed: this attempt failed.
        """
        try:
            async with Progress(job) as progress:
                return await self._operate(data, progress.reach)
        except MediaRefused as error:
            raise Discard(str(error)) from None

    async def _operate(self, data: MediaProcessingJob, reach: Reach) -> Any:
        output = data.output_path
        match data.type:
            case "video-stitch":
                return await self._media.stitch_videos(data.input_files, output, reach)
            case "audio-stitch":
                return await self._media.stitch_audio(data.input_files, output, reach)
            case "music-mix":
                return await self._media.mix_with_music(data.input_files[0], data.music_track, output, reach)
            case "frame-extract":
                return await self._media.extract_last_frame(data.input_files[0], output, reach)
