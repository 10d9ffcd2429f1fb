"""Reads what the provider answered: texts, pictures, videos in the making, errors. No IO.

Whatever is not as it should be is an ``AIFailed``; it quotes nothing but the provider's own reason,
which the caller's ``quote`` makes fit to be shown.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from beeq.ai.errors import AIFailed
from beeq.protocol.codec import loads

#: Makes a stranger's text fit for a message.
Quote = Callable[[str], str]

MAX_ID_LENGTH = 512
_DONE = frozenset(("completed", "succeeded", "success"))
_FAILED = frozenset(("failed", "cancelled", "canceled", "expired", "error", "rejected"))
#: These would not stay one segment of a URL's path.
_NO_SEGMENT = (".", "..")
_ALL = 100


class Stage(Enum):
    """Where a video is."""

    WORKING = "working"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class VideoState:
    """What the provider says of a video.

    Attributes:
        stage: where it is.
        percent: how far it is, 0 to 100; None if it does not say.
        url: where it lies, as the provider wrote it; None if it does not say.
        reason: why it failed, fit to be shown; empty if it does not say.
    """

    stage: Stage
    percent: float | None = None
    url: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture: its bytes, or the URL of it as the provider wrote it."""

    content: bytes | None = None
    url: str | None = None


def chat_text(answer: Any, quote: Quote) -> str:
    """Return the text of a chat completion.

    Raises:
        AIFailed: there is none, or it was cut off.
    """
    _check_error(answer, quote)
    choice = _first(_get(answer, "choices"))
    message = _get(choice, "message")
    refusal = _get(message, "refusal")
    if isinstance(refusal, str) and refusal:
        raise AIFailed(f"AI provider: the model refused: {quote(refusal)}")
    text = _get(message, "content")
    if isinstance(text, list):
        parts = [part["text"] for part in text if isinstance(_get(part, "text"), str)]
        text = "".join(parts) if parts else None
    reason = _get(choice, "finish_reason")
    if reason == "length":
        raise AIFailed("AI provider: the text was cut off at the model's greatest length")
    if reason == "content_filter":
        raise AIFailed("AI provider: the text was held back by the content filter")
    if not isinstance(text, str):
        raise AIFailed("AI provider: its answer is no chat completion")
    if not text.strip():
        raise AIFailed("AI provider: the model wrote nothing")
    return text


def picture(answer: Any, quote: Quote) -> Picture:
    """Return the first picture of an answer; its bytes if they are there.

    Raises:
        AIFailed: there is none.
    """
    _check_error(answer, quote)
    item = _first(_get(answer, "data"))
    encoded = _get(item, "b64_json")
    if isinstance(encoded, str) and encoded:
        try:
            return Picture(content=base64.b64decode(encoded, validate=True))
        except (binascii.Error, ValueError):
            raise AIFailed("AI provider: the picture in its answer is not base64") from None
    url = _get(item, "url")
    if isinstance(url, str) and url:
        return Picture(url=url)
    raise AIFailed("AI provider: there is no picture in its answer")


def video_id(answer: Any, quote: Quote) -> str:
    """Return the id of a video that was ordered.

    Raises:
        AIFailed: there is none that could be asked for.
    """
    found = _get(answer, "id")
    if is_video_id(found):
        return str(found)
    _check_error(answer, quote)
    raise AIFailed("AI provider: there is no usable id of a video in its answer")


def is_video_id(value: Any) -> bool:
    """Return whether it is an id that can be asked for, and kept."""
    if not isinstance(value, str) or value in _NO_SEGMENT:
        return False
    return 0 < len(value) <= MAX_ID_LENGTH and value.isprintable()


def video_state(answer: Any, quote: Quote) -> VideoState:
    """Return what an answer says of a video. A status that is not known here means that it is made yet.

    Raises:
        AIFailed: it says nothing.
    """
    status = _get(answer, "status")
    if not isinstance(status, str):
        _check_error(answer, quote)
        raise AIFailed("AI provider: there is no status of a video in its answer")
    status = status.lower()
    if status in _FAILED:
        return VideoState(Stage.FAILED, reason=quote(_reason(_get(answer, "error")) or status))
    url = _get(answer, "url")
    return VideoState(
        Stage.DONE if status in _DONE else Stage.WORKING,
        percent=_percent(_get(answer, "progress")),
        url=url if isinstance(url, str) and url else None,
    )


def error_text(body: bytes) -> str:
    """Return the reason in the body of an answer that says no; all of the body if it is no JSON."""
    try:
        answer = loads(body)
    except ValueError:
        return body.decode(errors="replace")
    for name in ("error", "message", "detail"):
        if reason := _reason(_get(answer, name)):
            return reason
    return body.decode(errors="replace")


def _check_error(answer: Any, quote: Quote) -> None:
    if reason := _reason(_get(answer, "error")):
        raise AIFailed(f"AI provider: {quote(reason)}")


def _reason(error: Any) -> str:
    """Return an error's text: itself, or that of its message or code."""
    if isinstance(error, str):
        return error
    for name in ("message", "msg", "code"):
        text = _get(error, name)
        if isinstance(text, str) and text:
            return text
    return _reason(error[0]) if isinstance(error, list) and error and not isinstance(error[0], list) else ""


def _percent(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return min(value, _ALL) if value > 0 else 0


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None
