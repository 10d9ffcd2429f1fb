"""Errors and pictures that are made to stop their reader: each ends as any other failure of the provider."""

from __future__ import annotations

from typing import Any

import pytest

from beeq.ai.dialect.refusals import is_no_credit, refusal_in
from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.responses import chat_text
from tests.ai.server import CHAT, IMAGES, AIServer, Make, ai_job, answer


def nested(levels: int) -> list[Any]:
    """Return a list in a list, so many levels deep."""
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("kind", ["script", "image"])
@pytest.mark.parametrize(
    "response",
    [
        {"error": {"message": "no", "why": nested(900)}},
        {"error": {"message": "no", "loc": nested(900)}},
        {"error": ["no", "\ud800", 10**400]},
        {"data": [{"url": "data:image/png,\ud800%00"}], "error": None},
        {"data": [{"url": "data:image/png;base64,%00\ud800"}], "error": None},
    ],
)
async def test_a_hostile_answer_gives_up_its_idempotency_key(
    server: AIServer, make: Make, kind: str, response: Any
) -> None:
    route = CHAT if kind == "script" else IMAGES
    server.on(route, answer(response))
    processor, job = make(), ai_job(kind)
    keys = set()
    for _ in range(2):
        server.requests.clear()
        with pytest.raises(AIFailed):
            await processor(job)
        keys |= {request.headers["idempotency-key"] for request in server.requests}
    assert len(keys) >= 2


def test_the_beginning_of_an_error_tells_of_credit() -> None:
    """All of an error of 90 MB takes seconds, in which no other thread runs."""
    code = "insufficient_quota"
    for rest in ("x" * 70_000, ["x"] * 70_000, [[]] * 70_000, {str(at): at for at in range(40_000)}):
        with pytest.raises(AIFailed):
            chat_text({"error": {"message": "no", "rest": rest, "code": code}}, str)
        with pytest.raises(AIRefused):
            chat_text({"error": {"message": "no", "code": code, "rest": rest}}, str)
    assert is_no_credit({"a": [nested(900), {code: True}]})
    assert is_no_credit(f"429 - {{'code': '{code}'}}")


@pytest.mark.parametrize("name", [b"loc", b"path"])
def test_a_refusal_names_only_texts_and_numbers(name: bytes) -> None:
    body = b'{"detail":[{"%b":["body",%b,"size",0]}]}' % (name, b"[" * 900 + b"]" * 900)
    assert refusal_in(body, str).names == ("size.0",)
