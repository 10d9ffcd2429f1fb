"""A video: requested once, polled until it is ready, and fetched.

A failure while the video is made costs time, but never a second video: the provider's id is kept with the
job, and an attempt that finds one goes on polling. Only when the provider itself says that this video
failed or is gone, does the next attempt request another.
"""

import asyncio
import logging
import math
from http import HTTPStatus
from typing import Any

import httpx

from beeq.ai.client import AIClient
from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.files import MediaFiles
from beeq.ai.idempotency import ProviderRequests, shielded
from beeq.ai.responses import Stage, VideoState, video_id, video_state
from beeq.media.service import Reach

logger = logging.getLogger(__name__)

#: The longest delay after failed polls, unless the poll interval is longer.
MAX_BACKOFF_S = 60.0
#: The longest time that one attempt polls, for jobs with a longer timeout or none; the next goes on.
WATCH_S = 24 * 60 * 60.0
#: If the provider gives no progress, it is estimated: it nears 90 percent, and is at 57 after this.
_USUAL_S = 120.0
_NEARLY = 90
_UNKNOWN = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)


class Videos:
    """Makes videos with one provider, with ``interval_ms`` between two polls."""

    def __init__(self, client: AIClient, files: MediaFiles, interval_ms: int) -> None:
        self._client = client
        self._files = files
        self._interval_s = interval_ms / 1000

    async def make(self, requests: ProviderRequests, body: dict[str, Any], reach: Reach) -> dict[str, Any]:
        """Return the facts of a video's file, or ``{"url": …}`` if it is on another host than the provider's.

        ``body`` is that of the request, which is sent if the job has no video yet.
        """
        self._files.check(requests.job_id)
        if requests.video is None:
            video, state = await shielded(self._request(requests, body))
            wait_s = self._interval_s
        else:
            video, state, wait_s = requests.video, None, 0.0
        try:
            done = await self._finished(requests, video, state, wait_s, reach)
            return await self._fetch(requests.job_id, video, done)
        except AIRefused as refused:
            if refused.status != HTTPStatus.GONE:
                raise
            await requests.discard()
            raise AIFailed(str(refused)) from None

    async def _request(
        self, requests: ProviderRequests, body: dict[str, Any]
    ) -> tuple[str, VideoState | None]:
        """Request a video, and keep its id; return the id, and its state if the response gives one."""
        response = await self._client.post(
            "video", self._client.endpoint("videos"), body, idempotency_key=requests.idempotency_key
        )
        video = video_id(response, self._client.redactor.quoted)
        if self._client.redactor.is_in(video):
            raise AIFailed("AI provider: the id of its video holds the key")
        await requests.remember_video(video)
        try:
            return video, video_state(response, self._client.redactor.quoted)
        except AIFailed:
            return video, None  # the video is requested all the same: poll it

    async def _finished(
        self, requests: ProviderRequests, video: str, state: VideoState | None, wait_s: float, reach: Reach
    ) -> VideoState:
        """Poll until the video is ready, from its ``state`` on, first after ``wait_s``."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        failures = 0
        has_percent = False
        while True:
            if state is not None:
                if state.stage is Stage.DONE:
                    return state
                if state.stage is Stage.FAILED:
                    await requests.discard()
                    raise AIFailed(f"AI provider: the video failed: {state.reason}")
                has_percent = has_percent or state.percent is not None
                reach(state.percent if state.percent is not None else 0)
            watched_s = loop.time() - started_s
            if watched_s > WATCH_S:
                raise AIFailed("AI provider: the video is not ready after a day")
            if not has_percent:
                reach(_NEARLY * -math.expm1(-watched_s / _USUAL_S))
            await asyncio.sleep(wait_s)
            await requests.retry_remembering()
            try:
                state = await self._poll(video)
            except AIFailed as failed:
                state = None
                failures += 1
                wait_s = self._backoff_s(failures, failed.retry_after_ms)
                logger.warning("job %r: %s; next look in %.1f s", requests.job_id, failed, wait_s)
            else:
                failures = 0
                wait_s = self._interval_s

    async def _poll(self, video: str) -> VideoState:
        try:
            response = await self._client.get("look at the video", self._url(video))
        except AIRefused as refused:
            if refused.status not in _UNKNOWN:
                raise
            return VideoState(Stage.FAILED, reason=f"the provider does not know it: {refused}")
        return video_state(response, self._client.redactor.quoted)

    def _backoff_s(self, failures: int, retry_after_ms: int | None) -> float:
        longest_s = max(MAX_BACKOFF_S, self._interval_s)
        # Beyond an exponent of 30 the result is the same.
        backoff_s = min(self._interval_s * 2.0 ** min(failures, 30), longest_s)
        return max(backoff_s, (retry_after_ms or 0) / 1000)

    async def _fetch(self, job_id: str, video: str, state: VideoState) -> dict[str, Any]:
        url = self._url(video, "content") if state.url is None else self._client.own_url(state.url)
        if url is None:
            return {"url": self._client.redactor.redacted(state.url)}
        max_bytes = self._client.limits.video_bytes
        async with self._client.download("fetch the video", url, max_bytes) as pieces:
            return await self._files.save_video(job_id, pieces)

    def _url(self, video: str, *more: str) -> httpx.URL:
        return self._client.endpoint("videos", video, *more)
