"""The processor of ``ai-generation``: chooses a job's model, and turns the provider's errors into outcomes.

``beeq.ai`` does the work.
"""

from typing import Any

from beeq.ai.client import AIClient, Limits
from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.files import MediaFiles
from beeq.ai.generation import Generation
from beeq.ai.idempotency import ProviderRequests
from beeq.ai.provider import BASE_URL_SETTING
from beeq.errors import Discard, Retry
from beeq.job import RunningJob
from beeq.jobs import AIGenerationJob
from beeq.media.errors import MediaRefused
from beeq.media.ffmpeg import FFmpeg
from beeq.media.paths import MediaRoot
from beeq.processors.base import Processor, ProcessorSettings, Progress, project_folder
from beeq.protocol.options import backoff_ms_of


class AIProcessor(Processor[AIGenerationJob]):
    """Generates scripts, descriptions, pictures and videos by an OpenAI-compatible API.

    Results: ``script`` ``{"title", "scenes"}``, ``scene-description`` ``{"text"}``, ``image`` ``{"path",
    "bytes"}`` or ``{"url"}``, ``video`` the facts of a file or ``{"url"}``. Files are written to the media
    root itself, and named by the job's id.

    After a 429 or 5xx the job is retried as its policy says, and not before a ``Retry-After`` has
    passed; other 4xx fail the job at once. A video is requested once, also if the job runs again.

    Raises ValueError if the provider's URL or key is invalid; the message names the variable.
    """

    queue_name = "ai-generation"

    def __init__(self, settings: ProcessorSettings, *, limits: Limits | None = None) -> None:
        text = ("BEEQ_AI_TEXT_MODEL", settings.ai_text_model)
        self._models = {
            "script": text,
            "scene-description": text,
            "image": ("BEEQ_AI_IMAGE_MODEL", settings.ai_image_model),
            "video": ("BEEQ_AI_VIDEO_MODEL", settings.ai_video_model),
        }
        self._settings = settings
        self._files = MediaFiles(MediaRoot(settings.media_root), FFmpeg(settings.media_limits))
        self._client: AIClient | None = None
        self._generation: Generation | None = None
        if settings.ai_base_url is not None:
            self._client = AIClient(
                settings.ai_base_url,
                settings.ai_api_key,
                limits or Limits(text_bytes=settings.ai_max_text_bytes, scenes=settings.ai_max_scenes),
                headers=settings.ai_headers,
                proxy=settings.ai_proxy,
                allow_hosts=settings.ai_allow_hosts,
            )
            self._generation = Generation(
                self._client,
                settings.ai_poll_interval_ms,
                is_reference_uploaded=settings.ai_video_reference == "upload",
            )

    async def perform(self, job: RunningJob, data: AIGenerationJob) -> Any:
        """Generate the job's result."""
        assert job.id is not None  # noqa: S101 - a running job has an id
        if self._generation is None:
            raise Discard(f"no AI provider: {BASE_URL_SETTING} is not set")
        files = self._files.in_project(project_folder(self._settings, data))
        setting, model = self._models[data.type]
        model = data.model_id or model
        if not model:
            raise Discard(f"no model: {setting} is not set, and the job has no modelId")
        try:
            async with Progress(job) as progress:
                requests = ProviderRequests(job.id, job.memory, job.remember)
                return await self._generation.generate(requests, data, model, files, progress.reach)
        except (AIRefused, MediaRefused) as refused:
            raise Discard(str(refused)) from None
        except AIFailed as failed:
            wait_ms = failed.retry_after_ms
            if wait_ms is not None and wait_ms > backoff_ms_of(job.options):
                raise Retry(after=wait_ms, reason=str(failed)) from None
            raise

    async def close(self) -> None:
        """Close the connections kept for the next job."""
        if self._client is not None:
            await self._client.aclose()
