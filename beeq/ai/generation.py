"""The four kinds of AI jobs, each from the job's fields to its result."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeVar

from beeq.ai.bodies.gate import SHORT_BYTES
from beeq.ai.client import AIClient, text_too_long
from beeq.ai.dialect.dialects import CHAT, IMAGES, Dialects, RequestKind
from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.files import MediaFiles
from beeq.ai.film.reference import References
from beeq.ai.film.videos import Videos
from beeq.ai.idempotency import ProviderRequests
from beeq.ai.parameters import IMAGE_FIELDS, TEXT_FIELDS, VIDEO_FIELDS, fields
from beeq.ai.responses import chat_text, picture
from beeq.ai.writing.script import INSTRUCTIONS, script
from beeq.ai.writing.thinking import answer_in
from beeq.jobs import AIGenerationJob
from beeq.media.service import Reach
from beeq.protocol.codec import dumps

_DESCRIBER = """\
You write descriptions of scenes for films. Answer with the description and nothing else.
"""
#: A script of many small values takes so many times the memory of a response in JSON.
_SCRIPT_FACTOR = 8
_Result = TypeVar("_Result")


class Generation:
    """Generates the results of jobs.

    Every call raises ``AIRefused`` or ``MediaRefused`` if every attempt would fail, and ``AIFailed`` or
    ``MediaFailed`` if this attempt failed. The caller closes the ``client``; ``interval_ms`` passes between
    two polls of a video. The picture that a video begins with is uploaded, or else its URL is sent.
    """

    def __init__(self, client: AIClient, interval_ms: int, *, is_reference_uploaded: bool = True) -> None:
        self._client = client
        references = References(client)
        self._videos = Videos(client, interval_ms, references, is_reference_uploaded=is_reference_uploaded)
        self._dialects = Dialects()
        self._quote = client.redactor.quoted
        self._script = partial(script, max_scenes=client.limits.scenes)

    async def generate(
        self, requests: ProviderRequests, data: AIGenerationJob, model: str, files: MediaFiles, reach: Reach
    ) -> Any:
        """Return the result of a job, by its type; a picture or a video is one of its ``files``."""
        match data.type:
            case "script":
                wanted = {"response_format": {"type": "json_object"}}
                return await self._chat(requests, data, model, INSTRUCTIONS, self._script, **wanted)
            case "scene-description":
                return {"text": await self._chat(requests, data, model, _DESCRIBER, _answer)}
            case "image":
                return await self._image(requests, data, model, files)
            case "video":
                body = {"model": model, "prompt": data.prompt, **fields(data.parameters, VIDEO_FIELDS)}
                image_url = _text_parameter(data, "imageUrl")
                return await self._videos.make(requests, body, image_url, files, reach)

    async def _chat(
        self,
        requests: ProviderRequests,
        data: AIGenerationJob,
        model: str,
        instructions: str,
        read: Callable[[str], Any],
        **more: Any,
    ) -> Any:
        """Return what ``read`` makes of the model's text, without secrets."""
        messages = [{"role": "system", "content": instructions}, {"role": "user", "content": _request(data)}]
        # Some gateways stream unless the request declines it.
        body = {"model": model, "messages": messages, "stream": False, **more}
        text = await self._ask(
            CHAT,
            requests,
            body | fields(data.parameters, TEXT_FIELDS),
            partial(
                self._client.post,
                data.type,
                self._client.endpoint("chat", "completions"),
                is_for_text=True,
            ),
            self._text_in,
        )
        # In a thread at least: a short text may be hard to read, too.
        size_bytes = max(SHORT_BYTES, _SCRIPT_FACTOR * len(text))
        try:
            return await self._client.gate.call(
                size_bytes, lambda: self._client.redactor.redacted(read(text))
            )
        except AIFailed:
            await requests.discard()
            raise

    async def _ask(
        self,
        kind: RequestKind,
        requests: ProviderRequests,
        body: dict[str, Any],
        post: Callable[..., Awaitable[_Result]],
        read: Callable[[Any], _Result],
    ) -> _Result:
        """Return what ``read`` makes of the response.

        An unusable response must not come again for the same idempotency key.
        """
        is_useless = False

        def reading(response: Any) -> _Result:
            nonlocal is_useless
            try:
                return read(response)
            except AIFailed:
                is_useless = True
                raise

        try:
            found: _Result = await self._dialects.ask(
                kind,
                requests,
                body,
                lambda body: post(body, idempotency_key=requests.idempotency_key, read=reading),
            )
        except AIFailed:
            if is_useless:
                await requests.discard()
            raise
        return found

    def _text_in(self, response: Any) -> str:
        text = chat_text(response, self._quote)
        max_bytes = self._client.limits.text_bytes
        if len(text) > max_bytes or len(text.encode(errors="surrogatepass")) > max_bytes:
            raise text_too_long(max_bytes)
        return text

    async def _image(
        self, requests: ProviderRequests, data: AIGenerationJob, model: str, files: MediaFiles
    ) -> dict[str, Any]:
        with files.long_strings(requests.job_id) as long_strings:
            body = {"model": model, "prompt": data.prompt, "n": 1}
            found = await self._ask(
                IMAGES,
                requests,
                body | fields(data.parameters, IMAGE_FIELDS),
                partial(
                    self._client.post,
                    data.type,
                    self._client.endpoint("images", "generations"),
                    long_strings=long_strings,
                ),
                lambda response: picture(response, self._quote, long_strings.find),
            )
            try:
                return await self._saved(requests, found, files)
            except AIFailed:
                if not isinstance(found, str):  # the same idempotency key might get the same picture
                    await requests.discard()
                raise

    async def _saved(
        self, requests: ProviderRequests, found: bytes | Iterator[bytes] | str, files: MediaFiles
    ) -> dict[str, Any]:
        """Save a picture; return ``path`` and ``bytes``, or its ``url`` if that is not the provider's own."""
        max_bytes = self._client.limits.image_bytes
        if not isinstance(found, str):
            whole = (found,) if isinstance(found, bytes) else found
            return await files.save_image(requests.job_id, _bounded(whole, max_bytes))
        url = self._client.own_url(found)
        if url is None:
            return {"url": self._client.redactor.redacted(found)}
        async with self._client.download("fetch the image", url, max_bytes) as pieces:
            return await files.save_image(requests.job_id, pieces)


def _request(data: AIGenerationJob) -> str:
    """Return the text for the model: the prompt, and in JSON the parameters that are not fields."""
    others = {name: value for name, value in data.parameters.items() if name not in TEXT_FIELDS}
    parts = [data.prompt] if data.prompt else []
    if others or not parts:
        parts.append(f"Parameters, in JSON:\n{dumps(others).decode()}")
    return "\n\n".join(parts)


def _answer(text: str) -> str:
    """Return a model's text without its thinking."""
    answer = answer_in(text)
    if not answer.strip():
        raise AIFailed("AI provider: the model wrote nothing but its thinking")
    return answer


def _text_parameter(data: AIGenerationJob, name: str) -> str | None:
    """Return a parameter, which must be text that is not empty; None if it is not given."""
    value = data.parameters.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise AIRefused(f"bad job: parameters: {name} must be text that is not empty")
    return value


async def _bounded(content: Iterable[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """Yield the pieces of a picture, and let the loop go on in between."""
    length = 0
    for piece in content:
        length += len(piece)
        if length > max_bytes:
            raise AIFailed(f"AI provider, image: its picture is longer than {max_bytes} bytes")
        yield piece
        await asyncio.sleep(0)
