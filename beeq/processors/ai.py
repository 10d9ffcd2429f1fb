"""The processor of ``ai-generation``: what a job asks of the AI provider, and what its answers mean for it.

How the provider is asked is ``beeq.ai``'s business.
"""

from __future__ import annotations

from typing import Any

from beeq.ai.client import BASE_URL_SETTING, AIClient, Limits
from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.generation import Generation
from beeq.ai.idempotency import Orders
from beeq.errors import Discard, Retry
from beeq.jobs import AIGenerationJob
from beeq.media.errors import MediaRefused
from beeq.processors.base import Processor, ProcessorSettings, Progress, RunningJob
from beeq.protocol.options import backoff_ms_of


class AIProcessor(Processor[AIGenerationJob]):
    """Has scripts, descriptions, pictures and videos made by an OpenAI-compatible API.

    Results: ``script`` ``{"title", "scenes"}``, ``scene-description`` ``{"text"}``, ``image`` ``{"path",
    "bytes"}`` or ``{"url"}``, ``video`` the facts of a file or ``{"url"}``. Files lie in the media root
    itself and are named by the job's id.

    429 and 5xx are tried again as the job's policy says, and not before a ``Retry-After`` has
    passed; other 4xx fail the job at once. A video is ordered once, however often the job is run.

    Args:
        settings: of these, the media root and all that begin with ``ai_``.
        limits: how long and how much the provider may answer.

    Raises:
        ValueError: URL or key is of no use; the message names the variable.
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
        self._client: AIClient | None = None
        self._generation: Generation | None = None
        if settings.ai_base_url is not None:
            self._client = AIClient(settings.ai_base_url, settings.ai_api_key, limits)
            self._generation = Generation(self._client, settings.media_root, settings.ai_poll_interval_ms)

    async def perform(self, job: RunningJob, data: AIGenerationJob) -> Any:
        """Have made what the job's type names.

        Raises:
            Discard: a setting is missing, or the provider refuses it.
            Retry: the provider wants a longer wait than the job's backoff.
            AIFailed, MediaFailed: any other failure; the backoff decides.
        """
        if self._generation is None:
            raise Discard(f"no AI provider: {BASE_URL_SETTING} is not set")
        setting, model = self._models[data.type]
        model = data.model_id or model
        if not model:
            raise Discard(f"no model: {setting} is not set, and the job has no modelId")
        try:
            async with Progress(job) as progress:
                return await self._generation.generate(Orders(job), data, model, progress.reach)
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
