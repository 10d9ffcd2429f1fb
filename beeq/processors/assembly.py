"""The processor of ``video-assembly``: a film from its scenes and its sound, in each requested format."""

from __future__ import annotations

from typing import Any

from beeq.errors import Discard
from beeq.job import RunningJob
from beeq.jobs import VideoAssemblyJob
from beeq.media.errors import MediaRefused
from beeq.media.paths import safe_name
from beeq.processors.base import Processor, ProcessorSettings, Progress
from beeq.processors.media import media_of


class AssemblyProcessor(Processor[VideoAssemblyJob]):
    """Assembles films, by ffmpeg under the media root or by a remote service.

    The result is each file's facts by its format. The files are written to the media root itself, and named
    by the job's id in the queue (by ``safe_name``). So a job that runs again writes the same files.
    """

    queue_name = "video-assembly"

    def __init__(self, settings: ProcessorSettings) -> None:
        self._media = media_of(settings)

    async def perform(self, job: RunningJob, data: VideoAssemblyJob) -> Any:
        """Assemble the film and return the facts of its files.

        Raises:
            Discard: a path is not allowed, or a file is not usable.
            MediaFailed: this attempt failed.
        """
        assert job.id is not None  # noqa: S101 - a running job has an id
        try:
            async with Progress(job) as progress:
                return await self._media.assemble_video(
                    data.scene_videos,
                    data.master_audio,
                    data.output_formats,
                    safe_name(job.id),
                    progress.reach,
                )
        except MediaRefused as error:
            raise Discard(str(error)) from None
