"""A video: ordered once, looked at until it is there, and fetched.

What may break while it is made costs time and never a second order: the provider's id is kept with
the job, and an attempt that finds one goes on from there. Only the provider's own word that this video
will not be had lets the next attempt order another.
"""

from __future__ import annotations

import asyncio
import logging
import math
from http import HTTPStatus
from typing import Any

import httpx

from beeq.ai.client import AIClient
from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.files import MediaFiles
from beeq.ai.idempotency import Orders, unbroken
from beeq.ai.responses import Stage, VideoState, video_id, video_state
from beeq.media.service import Reach

logger = logging.getLogger(__name__)

#: Between two looks that failed, however many have; a longer poll interval is kept to.
MAX_BACKOFF_S = 60.0
#: An attempt looks for no longer, whatever timeout its job has or lacks; the next one goes on.
WATCH_S = 24 * 60 * 60.0
#: Without a word of the provider, progress nears 90 percent, and has gone most of the way after this.
_USUAL_S = 120.0
_NEARLY = 90
_UNKNOWN = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_ORDERING = "video"
_LOOKING = "look at the video"
_FETCHING = "fetch the video"


class Videos:
    """Makes videos with one provider.

    Args:
        client: how to ask it.
        files: where the videos go.
        interval_ms: between two looks.
    """

    def __init__(self, client: AIClient, files: MediaFiles, interval_ms: int) -> None:
        self._client = client
        self._files = files
        self._interval_s = interval_ms / 1000

    async def make(self, orders: Orders, order: dict[str, Any], reach: Reach) -> dict[str, Any]:
        """Return the facts of a video's file, or ``{"url": …}`` if it lies at somebody else's.

        Args:
            orders: the job's.
            order: the body of the order, used if the job has none yet.
            reach: told how far it is.

        Raises:
            AIFailed, MediaFailed: it did not work this time.
            AIRefused, MediaRefused: it never will.
        """
        self._files.check(orders.job_id)
        state: VideoState | None = None
        wait_s = 0.0
        if orders.video is None:
            state = await unbroken(self._order(orders, order))
            wait_s = self._interval_s
        assert orders.video is not None  # noqa: S101 - it was just ordered
        try:
            return await self._fetch(orders, await self._finished(orders, state, wait_s, reach))
        except AIRefused as refused:
            if refused.status != HTTPStatus.GONE:
                raise
            await orders.spent()
            raise AIFailed(str(refused)) from None

    async def _order(self, orders: Orders, order: dict[str, Any]) -> VideoState | None:
        """Order a video, and keep its id; return what the provider says of it by then."""
        answer = await self._client.order(
            _ORDERING, self._client.endpoint("videos"), order, idempotency_key=orders.idempotency_key
        )
        video = video_id(answer, self._client.redactor.quoted)
        if self._client.redactor.is_in(video):
            raise AIFailed("AI provider: the id of its video holds the key")
        await orders.placed(video)
        try:
            return video_state(answer, self._client.redactor.quoted)
        except AIFailed:
            return None  # it is ordered, and will be looked at

    async def _finished(
        self, orders: Orders, state: VideoState | None, wait_s: float, reach: Reach
    ) -> VideoState:
        """Look until the video is there."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        failures = 0
        says_percent = False
        while True:
            if state is not None:
                if state.stage is Stage.DONE:
                    return state
                if state.stage is Stage.FAILED:
                    await orders.spent()
                    raise AIFailed(f"AI provider: the video failed: {state.reason}")
                says_percent = says_percent or state.percent is not None
                reach(state.percent if state.percent is not None else 0)
            watched_s = loop.time() - started_s
            if watched_s > WATCH_S:
                raise AIFailed("AI provider: the video is not ready after a day")
            if not says_percent:
                reach(_NEARLY * -math.expm1(-watched_s / _USUAL_S))
            await asyncio.sleep(wait_s)
            await orders.keep_again()
            try:
                state = await self._look(orders)
            except AIFailed as failed:
                state = None
                failures += 1
                wait_s = self._backoff_s(failures, failed.retry_after_ms)
                logger.warning("job %r: %s; next look in %.1f s", orders.job_id, failed, wait_s)
            else:
                failures = 0
                wait_s = self._interval_s

    async def _look(self, orders: Orders) -> VideoState:
        try:
            return video_state(
                await self._client.look(_LOOKING, self._url(orders)), self._client.redactor.quoted
            )
        except AIRefused as refused:
            if refused.status not in _UNKNOWN:
                raise
            return VideoState(Stage.FAILED, reason=f"the provider does not know it: {refused}")

    def _backoff_s(self, failures: int, retry_after_ms: int | None) -> float:
        longest_s = max(MAX_BACKOFF_S, self._interval_s)
        # An exponent beyond this changes nothing.
        backoff_s = min(self._interval_s * 2.0 ** min(failures, 30), longest_s)
        return max(backoff_s, (retry_after_ms or 0) / 1000)

    async def _fetch(self, orders: Orders, state: VideoState) -> dict[str, Any]:
        url: httpx.URL | None = self._url(orders, "content")
        if state.url is not None:
            url = self._client.own_url(state.url)
        if url is None:
            return {"url": self._client.redactor.masked(state.url)}
        max_bytes = self._client.limits.video_bytes
        async with self._client.download(_FETCHING, url, max_bytes) as pieces:
            return await self._files.save_video(orders.job_id, pieces)

    def _url(self, orders: Orders, *more: str) -> httpx.URL:
        assert orders.video is not None  # noqa: S101 - only what was ordered has a URL
        return self._client.endpoint("videos", orders.video, *more)
