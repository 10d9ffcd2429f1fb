"""Bodies of responses that were packed or streamed unasked: read like any other, and bounded like any other."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import pytest

from beeq.ai.bodies.answers import EndedEarly, json_of
from beeq.ai.bodies.unpacking import Unpacking, unpacked
from beeq.ai.client import Limits
from beeq.ai.errors import AIFailed
from beeq.errors import Discard
from tests.ai.server import CHAT, IMAGES, PNG, SCRIPT, AIServer, Make, ai_job, content, image

WHOLE = {"choices": [{"message": {"content": "A meadow."}, "finish_reason": "stop"}]}
TEXT = json.dumps(WHOLE).encode()


def chunks(*texts: str, end: str | None = "stop") -> list[dict[str, Any]]:
    """Return the events of a stream."""
    found: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}]
    found += [{"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts]
    if end:
        found.append({"choices": [{"index": 0, "delta": {}, "finish_reason": end}]})
    return [*found, {"choices": [], "usage": {"total_tokens": 7}}]


def sse(*events: Any, done: bool = True, newline: str = "\n") -> bytes:
    lines = [": keep-alive", ""]
    for event in events:
        lines += [f"data: {json.dumps(event)}", ""]
    return newline.join([*lines, *(["data: [DONE]", ""] if done else []), ""]).encode()


def raw_deflate(body: bytes) -> bytes:
    packing = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packing.compress(body) + packing.flush()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (gzip.compress(TEXT, mtime=0), {"content_encoding": "gzip"}),
        (gzip.compress(TEXT, mtime=0), {}),
        (
            gzip.compress(TEXT[:9], mtime=0) + gzip.compress(TEXT[9:], mtime=0) + b"\0\0",
            {"content_encoding": "x-gzip"},
        ),
        (zlib.compress(TEXT), {"content_encoding": "deflate"}),
        (raw_deflate(TEXT), {"content_encoding": "Deflate"}),
        (TEXT, {"content_encoding": "gzip"}),
        (b"\xef\xbb\xbf" + TEXT, {}),
        (b"\n\n  \xef\xbb\xbf".lstrip() + TEXT + b"\r\n", {}),
        (sse(*chunks("A ", "meadow.")), {"content_type": "text/event-stream"}),
        (sse(*chunks("A ", "meadow."), done=False, newline="\r\n"), {}),
        (sse(*chunks("A ", "meadow.", end=None)), {}),
        (b"\xef\xbb\xbf" + sse(WHOLE), {}),
        (sse(WHOLE, done=False).replace(b"data: ", b"data:"), {}),
        (b"\n".join(json.dumps(chunk).encode() for chunk in chunks("A ", "meadow.")), {}),
        (gzip.compress(sse(*chunks("A ", "meadow.")), mtime=0), {"content_encoding": "gzip"}),
    ],
)
async def test_a_response_in_another_form_is_read(
    server: AIServer, make: Make, body: bytes, headers: dict[str, str]
) -> None:
    server.on(CHAT, content(body, **headers))
    assert await make()(ai_job("scene-description")) == {"text": "A meadow."}
    (request,) = server.requests
    assert request.json["stream"] is False


async def test_a_streamed_script_and_a_streamed_picture_are_read(server: AIServer, make: Make) -> None:
    text = json.dumps(SCRIPT)
    server.on(CHAT, content(sse(*chunks(text[:20], text[20:]))))
    assert await make()(ai_job("script")) == SCRIPT
    partial = {"type": "image_generation.partial_image", "b64_json": "AAAA"}
    whole = {"type": "image_generation.completed", "b64_json": "iVBORw0KGgo="}
    server.on(IMAGES, content(sse(partial, whole, done=False)))
    assert (await make()(ai_job("image")))["bytes"] == 8


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (sse(*chunks("A ", end=None), done=False), "stream ended early"),
        (sse(*chunks("A "), {"error": {"message": "overloaded"}}), "overloaded"),
        (sse(*chunks("A ", end="length")), "cut off"),
        (sse(), "not JSON"),
        (b"data: {", "not JSON"),
        (gzip.compress(TEXT, mtime=0)[:-9], "broke off"),
        (b"\x1b packed", "packed as br, which was not asked for"),
        (gzip.compress(b" " * 10_000_000, mtime=0), r"longer than \d+ bytes"),
    ],
)
async def test_a_response_that_is_not_whole_fails(
    server: AIServer, make: Make, body: bytes, reason: str
) -> None:
    server.on(CHAT, content(body, **({"content_encoding": "br"} if "br," in reason else {})))
    with pytest.raises(AIFailed, match=reason):
        await make(Limits(json_bytes=1000, text_bytes=1000))(ai_job("scene-description"))


async def test_the_reason_of_a_packed_refusal_is_said(server: AIServer, make: Make) -> None:
    server.on(CHAT, content(gzip.compress(b'{"error": {"message": "no such model"}}'), 404))
    with pytest.raises(Discard, match="status 404: no such model"):
        await make()(ai_job("script"))


async def test_a_packed_file_is_unpacked(server: AIServer, make: Make) -> None:
    server.on(IMAGES, content(b'{"data": [{"url": "/a.png"}]}'))
    server.on("GET /a.png", content(gzip.compress(PNG), content_encoding="gzip"))
    assert (await make()(ai_job("image")))["bytes"] == len(PNG)
    server.on(IMAGES, image())
    assert (await make()(ai_job("image")))["bytes"] == len(PNG)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_packed_body_may_come_in_any_pieces(size: int) -> None:
    packed = gzip.compress(b"one, ") + gzip.compress(b"two")
    unpacking = Unpacking("", 100)
    pieces = [packed[start : start + size] for start in range(0, len(packed), size)]
    assert b"".join(found for piece in pieces for found in unpacking.pieces(piece)) == b"one, two"
    assert unpacking.rest() == b""


def test_what_comes_out_of_a_packed_body_is_bounded() -> None:
    bomb = gzip.compress(b"x" * 50_000_000)
    assert len(b"".join(Unpacking("", 1000).pieces(bomb))) == 1001
    assert len(unpacked(bomb, "gzip", 1000)) == 1000


def test_a_body_of_one_byte_is_that_byte() -> None:
    unpacking = Unpacking("gzip", 10)
    assert [*unpacking.pieces(b"7")] == []
    assert unpacking.rest() == b"7"


def test_a_stream_without_its_end_is_told_from_no_json() -> None:
    with pytest.raises(EndedEarly):
        json_of(sse(*chunks("A", end=None), done=False))
