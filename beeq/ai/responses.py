"""Reads the provider's responses: texts, pictures, errors. No IO.

Invalid responses raise ``AIFailed``. Its message quotes only the provider's own reason, which the caller's
``quote`` makes printable and free of secrets.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from beeq.ai.bodies.answers import is_answer_part, json_of
from beeq.ai.dialect.refusals import is_no_credit
from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.pictures import decoded, decoded_pieces, is_bare_base64, is_data_url
from beeq.http_client.retry_after import MAX_RETRY_AFTER_MS, retry_after_in

#: Makes the provider's text printable, and free of secrets.
Quote = Callable[[str], str]

#: Where a picture is in a response; the names after the first two are those of servers for Stable Diffusion.
_PICTURES = ("b64_json", "url", "base64", "b64", "image_base64", "image", "image_url")
_SCHEME_LENGTH = len("https://")


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
        parts = [part["text"] for part in text if is_answer_part(part)]
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


def picture(
    response: Any, quote: Quote, find: Callable[[str], Iterator[bytes] | None] = lambda _: None
) -> bytes | Iterator[bytes] | str:
    """Return the first picture of a response: its bytes, in pieces if it is large, or its URL as written.

    ``find`` returns a string that was cut out of the response, by its name.
    """
    _check_error(response, quote)
    item = _first(_get(response, "data")) or _first(_get(response, "images"))
    for name in _PICTURES:
        text = item if isinstance(item, str) else _get(item, name)
        text = _get(text, "url") if isinstance(text, dict) else text
        if not isinstance(text, str) or not text.strip():
            continue
        if (content := find(text)) is not None:
            return decoded_pieces(content)
        if text[:_SCHEME_LENGTH].lower().startswith(("http://", "https://")):
            return text
        if name == "url" and not is_data_url(text) and not is_bare_base64(text):
            return text
        return decoded(text)
    raise AIFailed("AI provider: there is no picture in its response")


def error_text(body: bytes) -> str:
    """Return the reason in the body of an error response; the whole body if it holds none."""
    try:
        response = json_of(body)
    except ValueError:
        return body.decode(errors="replace")
    for name in ("error", "message", "detail"):
        if text := reason_of(_get(response, name)):
            return text
    return body.decode(errors="replace")


def delay_ms_in(headers: Iterable[tuple[bytes, bytes]], now: datetime) -> int | None:
    """Return the delay that a response asks for: ``retry-after-ms``, or else ``Retry-After``."""
    headers = list(headers)
    for name, value in headers:
        if name.lower() == b"retry-after-ms" and re.fullmatch(rb"\s*[0-9]{1,12}(\.[0-9]{1,9})?\s*", value):
            return min(math.ceil(float(value)), MAX_RETRY_AFTER_MS)
    return retry_after_in(headers, now)


def _check_error(response: Any, quote: Quote) -> None:
    error = _get(response, "error")
    if text := reason_of(error):
        kind = AIRefused if is_no_credit(error) else AIFailed
        raise kind(f"AI provider: {quote(text)}")


def reason_of(error: Any) -> str:
    """Return an error's text: the error itself, or its message or code."""
    if isinstance(error, str):
        return error
    for name in ("message", "msg", "code"):
        text = _get(error, name)
        if isinstance(text, str) and text:
            return text
    return reason_of(error[0]) if isinstance(error, list) and error and not isinstance(error[0], list) else ""


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None
