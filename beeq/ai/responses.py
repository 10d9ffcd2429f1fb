"""Reads the provider's responses: texts, pictures, states of videos, errors. No IO.

Invalid responses raise ``AIFailed``. Its message quotes only the provider's own reason, which the caller's
``quote`` makes printable and free of secrets.
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from beeq.ai.errors import AIFailed
from beeq.protocol.codec import loads

#: Makes the provider's text printable, and free of secrets.
Quote = Callable[[str], str]

MAX_ID_LENGTH = 512
_DONE = frozenset(("completed", "succeeded", "success"))
_FAILED = frozenset(("failed", "cancelled", "canceled", "expired", "error", "rejected"))
#: These would not stay one segment of a URL's path.
_NO_SEGMENT = (".", "..")
_ALL = 100


class Stage(Enum):
    """How far a video is."""

    WORKING = "working"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class VideoState:
    """The state of a video in a response, as far as the provider gives it."""

    stage: Stage
    percent: float | None = None  # 0 to 100
    url: str | None = None  # as the provider wrote it
    reason: str = ""  # why the video failed, after ``quote``


def chat_text(response: Any, quote: Quote) -> str:
    """Return the text of a chat completion, unless it was cut off."""
    _check_error(response, quote)
    choice = _first(_get(response, "choices"))
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
        raise AIFailed("AI provider: its response is not a chat completion")
    if not text.strip():
        raise AIFailed("AI provider: the model wrote nothing")
    return text


def picture(response: Any, quote: Quote) -> bytes | str:
    """Return the first picture of a response: its bytes, or its URL as the provider wrote it."""
    _check_error(response, quote)
    item = _first(_get(response, "data"))
    encoded = _get(item, "b64_json")
    if isinstance(encoded, str) and encoded:
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise AIFailed("AI provider: the picture in its response is not base64") from None
    url = _get(item, "url")
    if isinstance(url, str) and url:
        return url
    raise AIFailed("AI provider: there is no picture in its response")


def video_id(response: Any, quote: Quote) -> str:
    """Return the id of a video that was requested."""
    found = _get(response, "id")
    if is_video_id(found):
        return str(found)
    _check_error(response, quote)
    raise AIFailed("AI provider: there is no usable id of a video in its response")


def is_video_id(value: Any) -> bool:
    """Return whether this is an id that can be used in a URL, and kept with the job."""
    if not isinstance(value, str) or value in _NO_SEGMENT:
        return False
    return 0 < len(value) <= MAX_ID_LENGTH and value.isprintable()


def video_state(response: Any, quote: Quote) -> VideoState:
    """Return the state of a video; a status that is not known here means that it is still being made."""
    status = _get(response, "status")
    if not isinstance(status, str):
        _check_error(response, quote)
        raise AIFailed("AI provider: there is no status of a video in its response")
    status = status.lower()
    if status in _FAILED:
        return VideoState(Stage.FAILED, reason=quote(_reason(_get(response, "error")) or status))
    url = _get(response, "url")
    return VideoState(
        Stage.DONE if status in _DONE else Stage.WORKING,
        percent=_percent(_get(response, "progress")),
        url=url if isinstance(url, str) and url else None,
    )


def error_text(body: bytes) -> str:
    """Return the reason in the body of an error response; the whole body if it holds none."""
    try:
        response = loads(body)
    except ValueError:
        return body.decode(errors="replace")
    for name in ("error", "message", "detail"):
        if reason := _reason(_get(response, name)):
            return reason
    return body.decode(errors="replace")


def _check_error(response: Any, quote: Quote) -> None:
    if reason := _reason(_get(response, "error")):
        raise AIFailed(f"AI provider: {quote(reason)}")


def _reason(error: Any) -> str:
    """Return an error's text: the error itself, or its message or code."""
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
