"""The processor of ``video-assembly``: a film from its scenes and its sound, in each format asked for."""

from __future__ import annotations

from typing import Any

from beeq.errors import Discard
from beeq.jobs import VideoAssemblyJob
from beeq.media.errors import MediaRefused
from beeq.media.paths import safe_name
from beeq.processors.base import Processor, ProcessorSettings, Progress, RunningJob
from beeq.processors.media import media_of


class AssemblyProcessor(Processor[VideoAssemblyJob]):
    """Assembles films, by ffmpeg under the media root or by a remote service.

    The result is each file's facts by its format. The files lie in the media root itself and are
    named by the queue's id of the job, which is unique in the queue: see ``safe_name`` for ids that
    are no names. So a job that is run again writes the same files.
    """

    queue_name = "video-assembly"

    def __init__(self, settings: ProcessorSettings) -> None:
        self._media = media_of(settings)

    async def perform(self, job: RunningJob, data: VideoAssemblyJob) -> Any:
        """Assemble the film and return the facts of its files.

        Raises:
            Discard: a path is forbidden, or a file is of no use for this.
            MediaFailed: it did not work this time.
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
