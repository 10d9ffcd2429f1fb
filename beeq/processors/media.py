"""The processors of ``media-processing`` and ``video-assembly``. ``beeq.media`` does the work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from beeq.errors import Discard
from beeq.job import RunningJob
from beeq.jobs import MediaParameters, MediaProcessingJob, VideoAssemblyJob
from beeq.media.errors import MediaRefused
from beeq.media.ffmpeg import FFmpeg
from beeq.media.paths import MediaRoot, safe_name
from beeq.media.remote import RemoteMedia
from beeq.media.service import LocalMedia, Reach
from beeq.processors.base import Processor, ProcessorSettings, Progress, project_folder


def media_of(settings: ProcessorSettings) -> LocalMedia | RemoteMedia:
    """Return the service for the settings: ffmpeg on this machine, or a remote one."""
    if settings.media_url is None:
        return LocalMedia(MediaRoot(settings.media_root), FFmpeg(settings.media_limits))
    return RemoteMedia(settings.media_url)


@asynccontextmanager
async def _reporting(job: RunningJob) -> AsyncIterator[Reach]:
    """Report a job's progress; a refusal discards the job."""
    try:
        async with Progress(job) as progress:
            yield progress.reach
    except MediaRefused as error:
        raise Discard(str(error)) from None


class MediaProcessor(Processor[MediaProcessingJob]):
    """Stitches, mixes and extracts frames, by ffmpeg under the media root or by a remote service.

    A result's ``path`` is the job's ``outputPath`` as given.
    """

    queue_name = "media-processing"

    def __init__(self, settings: ProcessorSettings) -> None:
        self._settings = settings
        self._media = media_of(settings)

    async def perform(self, job: RunningJob, data: MediaProcessingJob) -> Any:
        """Do the job's operation and return the facts of its file."""
        media = self._media.in_project(project_folder(self._settings, data))
        inputs, output = data.input_files, data.output_path
        parameters = MediaParameters.model_validate(data.parameters)
        async with _reporting(job) as reach:
            match data.type:
                case "video-stitch":
                    return await media.stitch_videos(inputs, output, reach, parameters)
                case "audio-stitch":
                    return await media.stitch_audio(inputs, output, reach, parameters)
                case "music-mix":
                    return await media.mix_with_music(
                        inputs[0], data.parameters["musicTrack"], output, reach, parameters
                    )
                case "frame-extract":
                    return await media.extract_last_frame(inputs[0], output, reach, parameters)


class AssemblyProcessor(Processor[VideoAssemblyJob]):
    """Assembles films from scenes and their sound, by ffmpeg under the media root or by a remote service.

    The result is each file's facts by its format. The files are written to the media root itself, and named
    by the job's id in the queue (by ``safe_name``). So a job that runs again writes the same files.
    """

    queue_name = "video-assembly"

    def __init__(self, settings: ProcessorSettings) -> None:
        self._settings = settings
        self._media = media_of(settings)

    async def perform(self, job: RunningJob, data: VideoAssemblyJob) -> Any:
        """Assemble the film and return the facts of its files."""
        assert job.id is not None  # noqa: S101 - a running job has an id
        media = self._media.in_project(project_folder(self._settings, data))
        name = safe_name(job.id)
        parameters = MediaParameters.model_validate(data.parameters or {})
        async with _reporting(job) as reach:
            return await media.assemble_video(
                data.scene_videos, data.master_audio, data.output_formats, name, reach, parameters=parameters
            )
