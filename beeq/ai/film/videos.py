"""A video: requested once, polled until it is ready, and fetched.

A failure while the video is made costs time, but never a second video: the provider's id is kept with the
job, and an attempt that finds one goes on polling. Only when the provider itself says that this video
failed or is gone, does the next attempt request another. A video that is not there just after its request, a
file that is not there just after its video, and a file whose transfer failed are requested again.
"""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import httpx

from beeq.ai.bodies.answers import JSONAnswer
from beeq.ai.client import AIClient, Form
from beeq.ai.errors import AIFailed, AIRefused, AIUnusable
from beeq.ai.files import MediaFiles
from beeq.ai.film.reference import Picture, References
from beeq.ai.film.states import Stage, VideoState, video_id, video_state
from beeq.ai.idempotency import ProviderRequests, shielded
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
#: How often a provider may not know a video that this attempt has just requested.
_UNKNOWN_LOOKS = 3
#: The file of a video that is ready may be missing, or its transfer fail, for so long within one attempt …
FILE_S = 30.0
#: … and is asked for after this, or the poll interval if that is shorter, and then ever later.
_FILE_AGAIN_S = 1.0
_NO_FILE_YET = (
    HTTPStatus.NOT_FOUND, HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY,
)  # fmt: skip
#: How many unknown words are logged.
_MOST_WORDS = 100


class Videos:
    """Makes videos with one provider, with ``interval_ms`` between two polls.

    The picture that a video begins with is uploaded, or else its URL is sent.
    """

    def __init__(
        self,
        client: AIClient,
        interval_ms: int,
        references: References,
        *,
        is_reference_uploaded: bool = True,
    ) -> None:
        self._client = client
        self._interval_s = interval_ms / 1000
        self._references = references
        self._is_reference_uploaded = is_reference_uploaded
        self._unknown_words: set[str] = set()
        self._wants_forms = False  # True once the provider has taken no JSON

    async def make(
        self,
        requests: ProviderRequests,
        body: dict[str, Any],
        image_url: str | None,
        files: MediaFiles,
        reach: Reach,
    ) -> dict[str, Any]:
        """Return the facts of a video's file, or ``{"url": …}`` if it is on another host than the provider's.

        The file is one of ``files``. ``body`` is that of the request, which is sent if the job has no video
        yet; ``image_url`` names the picture that the video begins with.
        """
        files.check(requests.job_id)
        is_new = requests.video is None
        if requests.video is None:
            order = body if image_url is None else await self._with_picture(body, image_url, files)
            video, state = await shielded(self._request(requests, order))
        else:
            video, state = requests.video, None
        try:
            done = await self._finished(requests, video, state, reach, is_new=is_new)
            return await self._fetch(requests.job_id, video, done, files)
        except AIRefused as refused:
            if refused.status != HTTPStatus.GONE:
                raise
            await requests.discard()
            raise AIFailed(str(refused)) from None

    async def _with_picture(
        self, body: dict[str, Any], image_url: str, files: MediaFiles
    ) -> dict[str, Any] | Form:
        if not self._is_reference_uploaded:
            url = await self._references.url(image_url, files.root)
            return {**body, "input_reference": {"image_url": url}}
        picture = await self._references.picture(image_url, files.root)
        return _form(body, input_reference=picture)

    async def _request(
        self, requests: ProviderRequests, body: dict[str, Any] | Form
    ) -> tuple[str, VideoState | None]:
        """Request a video, and keep its id; return the id, and its state if the response gives one."""
        fits_a_form = not isinstance(body, Form) and "input_reference" not in body
        try:
            wanted = _form(body) if fits_a_form and self._wants_forms else body
            video, state = await self._post(requests, wanted)
        except AIRefused as refused:
            if not fits_a_form or self._wants_forms or not _wants_a_form(refused):
                raise
            video, state = await self._post(requests, _form(body))
            self._wants_forms = True
        if self._client.redactor.is_in(video):
            raise AIFailed("AI provider: the id of its video holds the key")
        await requests.remember_video(video)
        return video, None if state is None else self._noted(requests.job_id, state)

    async def _post(
        self, requests: ProviderRequests, body: dict[str, Any] | Form
    ) -> tuple[str, VideoState | None]:
        return await self._client.post(
            "video",
            self._client.endpoint("videos"),
            body,
            idempotency_key=requests.idempotency_key,
            read=self._ordered,
        )

    def _ordered(self, response: Any) -> tuple[str, VideoState | None]:
        """Return the id of a video that was requested, and its state if the response gives one."""
        video = video_id(response, self._client.redactor.quoted)
        try:
            return video, self._state(response)
        except AIFailed:
            return video, None  # the video is requested all the same: poll it

    def _state(self, response: Any) -> VideoState:
        return video_state(response, self._client.redactor.quoted)

    async def _finished(
        self,
        requests: ProviderRequests,
        video: str,
        state: VideoState | None,
        reach: Reach,
        *,
        is_new: bool,
    ) -> VideoState:
        """Poll until the video is ready, from its ``state`` on; at once, unless it was just requested."""
        wait_s = self._interval_s if is_new else 0.0
        unknown_looks = _UNKNOWN_LOOKS if is_new else 0
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
            unknown_looks -= 1
            try:
                state = await self._poll(requests.job_id, video, may_be_unknown=unknown_looks > 0)
            except AIFailed as failed:
                state = None
                failures += 1
                wait_s = self._backoff_s(failures, failed.retry_after_ms)
                logger.warning("job %.200r: %s; next look in %.1f s", requests.job_id, failed, wait_s)
            else:
                failures = 0
                wait_s = self._interval_s

    async def _poll(self, job_id: str, video: str, *, may_be_unknown: bool) -> VideoState:
        try:
            state = await self._client.get("look at the video", self._url(video), self._state)
        except AIRefused as refused:
            if refused.status not in _UNKNOWN:
                raise
            if may_be_unknown and refused.status == HTTPStatus.NOT_FOUND:
                raise AIFailed(str(refused)) from None
            return VideoState(Stage.FAILED, reason=f"the provider does not know it: {refused}")
        return self._noted(job_id, state)

    def _noted(self, job_id: str, state: VideoState) -> VideoState:
        """Return the state; its word is logged if it is not known."""
        words = self._unknown_words
        if state.unknown and state.unknown not in words and len(words) < _MOST_WORDS:
            words.add(state.unknown)
            taken = "ready, as its url is there" if state.stage is Stage.DONE else "still being made"
            logger.warning(
                "job %.200r: a video's status %.100r is not known; taken as %s", job_id, state.unknown, taken
            )
        return state

    def _backoff_s(self, failures: int, retry_after_ms: int | None) -> float:
        longest_s = max(MAX_BACKOFF_S, self._interval_s)
        # Beyond an exponent of 30 the result is the same.
        backoff_s = min(self._interval_s * 2.0 ** min(failures, 30), longest_s)
        return max(backoff_s, (retry_after_ms or 0) / 1000)

    async def _fetch(self, job_id: str, video: str, state: VideoState, files: MediaFiles) -> dict[str, Any]:
        """Fetch the file; ask again, for ``FILE_S``, if it is not there yet or its transfer failed."""
        loop = asyncio.get_running_loop()
        until_s: float | None = None
        again_s = min(self._interval_s, _FILE_AGAIN_S)
        while True:
            try:
                return await self._fetch_once(job_id, video, state, files)
            except AIUnusable:
                raise
            except AIRefused as refused:
                if refused.status not in _NO_FILE_YET:
                    raise
                failed = AIFailed(str(refused))
            except AIFailed as error:
                failed = error
            until_s = loop.time() + FILE_S if until_s is None else until_s
            wait_s = max(again_s, (failed.retry_after_ms or 0) / 1000)
            if loop.time() + wait_s > until_s:
                raise failed from None
            logger.info("job %.200r: %s; asked again in %.1f s", job_id, failed, wait_s)
            await asyncio.sleep(wait_s)
            again_s *= 2

    async def _fetch_once(
        self, job_id: str, video: str, state: VideoState, files: MediaFiles
    ) -> dict[str, Any]:
        url = self._url(video, "content") if state.url is None else self._client.own_url(state.url)
        if url is None:
            return {"url": self._client.redactor.redacted(state.url)}
        max_bytes = self._client.limits.video_bytes
        async with self._client.download("fetch the video", url, max_bytes) as pieces:
            first = await anext(pieces, b"")
            if not first.lstrip().startswith(b"{"):
                return await files.save_video(job_id, _joined(first, pieces))
            said = self._noted(job_id, await self._answer(first, pieces))
        if said.stage is Stage.FAILED:
            raise AIUnusable(f"AI provider: the video cannot be fetched: {said.reason}")
        if state.url is not None or said.url is None:
            raise AIFailed("AI provider, fetch the video: the provider has not sent the file yet")
        return await self._fetch_once(job_id, video, said, files)

    async def _answer(self, first: bytes, pieces: AsyncIterator[bytes]) -> VideoState:
        """Return the video's state in JSON that came in place of a file."""
        answer = JSONAnswer(self._client.limits.json_bytes)
        try:
            return await self._client.read(answer, _joined(first, pieces), self._state)
        except ValueError:
            raise AIUnusable("AI provider: its video is not MP4, MOV, WebM or Matroska") from None

    def _url(self, video: str, *more: str) -> httpx.URL:
        return self._client.endpoint("videos", video, *more)


def _form(body: dict[str, Any] | Form, **files: Picture) -> Form:
    return body if isinstance(body, Form) else Form({name: str(value) for name, value in body.items()}, files)


def _wants_a_form(refused: AIRefused) -> bool:
    """Return whether a provider that reads forms only refused a request in JSON, as if it were empty."""
    if refused.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
        return True
    return refused.status == HTTPStatus.UNPROCESSABLE_ENTITY and "field required" in str(refused).lower()


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
