"""The four things a provider makes for a job, each from the job's fields to its result."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from beeq.ai.client import AIClient
from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.files import MediaFiles
from beeq.ai.idempotency import Orders
from beeq.ai.responses import Picture, chat_text, picture
from beeq.ai.script import INSTRUCTIONS, script
from beeq.ai.videos import Videos
from beeq.jobs import AIGenerationJob
from beeq.media.service import Reach
from beeq.protocol.codec import dumps

_DESCRIBER = """\
You write descriptions of scenes for films. Answer with the description and nothing else.
"""
_Result = TypeVar("_Result")


class Generation:
    """Makes what a job asks for.

    Every call raises ``AIRefused`` or ``MediaRefused`` if it never can be made, and ``AIFailed`` or
    ``MediaFailed`` if it could not be made this time.

    Args:
        client: how to ask the provider; it stays the caller's to close.
        media_root: where files go.
        interval_ms: between two looks at a video in the making.
    """

    def __init__(self, client: AIClient, media_root: Path, interval_ms: int) -> None:
        self._client = client
        self._files = MediaFiles(media_root)
        self._videos = Videos(client, self._files, interval_ms)
        self._quote = client.redactor.quoted

    async def generate(self, orders: Orders, data: AIGenerationJob, model: str, reach: Reach) -> Any:
        """Make what the job's type names and return its result."""
        match data.type:
            case "script":
                return await self._script(orders, data, model)
            case "scene-description":
                return await self._description(orders, data, model)
            case "image":
                return await self._image(orders, data, model)
            case "video":
                order: dict[str, Any] = {"model": model, "prompt": data.prompt}
                image_url = _text_parameter(data, "imageUrl")
                if image_url is not None:
                    order["input_reference"] = {"image_url": image_url}
                return await self._videos.make(orders, order, reach)

    async def _script(self, orders: Orders, data: AIGenerationJob, model: str) -> dict[str, Any]:
        answer = await self._chat(orders, data, model, INSTRUCTIONS, response_format={"type": "json_object"})
        found = await _read(orders, answer, lambda whole: script(chat_text(whole, self._quote)))
        return {name: self._client.redactor.masked(value) for name, value in found.items()}

    async def _description(self, orders: Orders, data: AIGenerationJob, model: str) -> dict[str, Any]:
        answer = await self._chat(orders, data, model, _DESCRIBER)
        text = await _read(orders, answer, lambda whole: chat_text(whole, self._quote))
        return {"text": self._client.redactor.masked(text)}

    async def _chat(
        self, orders: Orders, data: AIGenerationJob, model: str, instructions: str, **more: Any
    ) -> Any:
        messages = [
            {"role": "system", "content": instructions},
            {"role": "user", "content": _request(data)},
        ]
        return await self._client.order(
            data.type,
            self._client.endpoint("chat", "completions"),
            {"model": model, "messages": messages, **more},
            idempotency_key=orders.idempotency_key,
        )

    async def _image(self, orders: Orders, data: AIGenerationJob, model: str) -> dict[str, Any]:
        self._files.check(orders.job_id)
        order: dict[str, Any] = {"model": model, "prompt": data.prompt, "n": 1}
        style = _text_parameter(data, "style")
        if style is not None:
            order["style"] = style
        limits = self._client.limits
        answer = await self._client.order(
            data.type,
            self._client.endpoint("images", "generations"),
            order,
            idempotency_key=orders.idempotency_key,
            max_bytes=limits.image_answer_bytes,
        )
        found = await _read(orders, answer, lambda whole: picture(whole, self._quote))
        try:
            return await self._kept(orders, found)
        except AIFailed:
            if found.content is not None:  # the same order might get the same picture
                await orders.spent()
            raise

    async def _kept(self, orders: Orders, found: Picture) -> dict[str, Any]:
        """Keep a picture as a file; return ``path`` and ``bytes``, or ``url`` if it is somebody else's."""
        max_bytes = self._client.limits.image_bytes
        if found.content is not None:
            if len(found.content) > max_bytes:
                raise AIFailed(f"AI provider, image: its picture is longer than {max_bytes} bytes")
            return await self._files.save_image(orders.job_id, _whole(found.content))
        assert found.url is not None  # noqa: S101 - a picture has one of the two
        url = self._client.own_url(found.url)
        if url is None:
            return {"url": self._client.redactor.masked(found.url)}
        async with self._client.download("fetch the image", url, max_bytes) as pieces:
            return await self._files.save_image(orders.job_id, pieces)


async def _read(orders: Orders, answer: Any, read: Callable[[Any], _Result]) -> _Result:
    """Read a whole answer. One that is of no use must not come again for the same idempotency key."""
    try:
        return read(answer)
    except AIFailed:
        await orders.spent()
        raise


def _request(data: AIGenerationJob) -> str:
    """Return what the model is asked: the prompt, and the parameters in JSON."""
    parts = [data.prompt] if data.prompt else []
    if data.parameters or not parts:
        parts.append(f"Parameters, in JSON:\n{dumps(data.parameters).decode()}")
    return "\n\n".join(parts)


def _text_parameter(data: AIGenerationJob, name: str) -> str | None:
    """Return a parameter that has to be text, None if it is not given.

    Raises:
        AIRefused: it is something else.
    """
    value = data.parameters.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise AIRefused(f"bad job: parameters: {name} must be text that is not empty")
    return value


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content
