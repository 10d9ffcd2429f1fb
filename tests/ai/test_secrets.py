"""The key and the password of the base URL: never shown, whatever the provider does with them."""

from __future__ import annotations

import base64
import json
import logging
from urllib.parse import quote

import pytest

from beeq.ai.client import AIClient
from beeq.ai.errors import AIFailed
from beeq.errors import Discard, Retry
from tests.ai.server import (
    CHAT,
    IMAGES,
    KEY,
    AIServer,
    Make,
    ai_job,
    answer,
    chat,
    content,
    whole_text_of,
)

SPELLINGS = [KEY, quote(KEY, safe=""), quote(KEY), KEY.replace("/", "\\/"), "\0".join(KEY)]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
@pytest.mark.parametrize("is_json", [True, False])
async def test_an_echoed_key_is_redacted_in_every_message(
    server: AIServer, make: Make, caplog: pytest.LogCaptureFixture, spelling: str, status: int, is_json: bool
) -> None:
    caplog.set_level(logging.INFO)
    text = f"Incorrect API key: {spelling}."
    body = json.dumps({"error": {"message": text}}) if is_json else text
    server.on(CHAT, content(body.encode(), status, retry_after="100"))
    with pytest.raises((Discard, Retry, AIFailed)) as caught:
        await make()(ai_job("script"))
    shown = whole_text_of(caught.value) + caplog.text
    assert is_json or status != 200 or "not JSON" in shown
    assert "hunter2" not in shown
    if status != 200 or is_json:
        assert "Incorrect API key: ***." in str(caught.value)


async def test_a_password_in_the_base_url_is_redacted_like_a_key(server: AIServer, make: Make) -> None:
    token = base64.b64encode(b"user:hidden/password").decode()
    server.on(CHAT, answer({"error": f"hidden/password, hidden%2fpassword or {token}?"}, 401))
    base = f"http://user:hidden%2Fpassword@127.0.0.1:{server.port}/v1"
    for key in (None, KEY):
        with pytest.raises(Discard) as caught:
            await make(ai_base_url=base, ai_api_key=key)(ai_job("script"))
        assert "hidden" not in whole_text_of(caught.value)
        assert str(caught.value).count("***") == (3 if key is None else 2)


async def test_an_echoed_key_is_redacted_in_results(server: AIServer, make: Make) -> None:
    script = {"title": f"of {KEY}", "scenes": [{"description": quote(KEY, safe=""), KEY: [KEY]}]}
    server.on(CHAT, chat(json.dumps(script)), chat(f"The key is {KEY}"))
    server.on(IMAGES, answer({"data": [{"url": f"https://a.example/?key={KEY}"}]}))
    processor = make()
    redacted = {"title": "of ***", "scenes": [{"description": "***", "***": ["***"]}]}
    assert await processor(ai_job("script")) == redacted
    assert await processor(ai_job("scene-description")) == {"text": "The key is ***"}
    assert await processor(ai_job("image")) == {"url": "https://a.example/?key=***"}


async def test_a_url_that_holds_the_key_is_not_fetched(
    server: AIServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.on(IMAGES, answer({"data": [{"url": f"/a.png?key={quote(KEY, safe='')}"}]}))
    with pytest.raises(AIFailed, match="holds the key") as caught:
        await make()(ai_job("image"))
    assert "hunter2" not in whole_text_of(caught.value) + caplog.text
    assert len(server.requests) == 1


def test_no_secret_is_in_the_repr_of_what_holds_it() -> None:
    client = AIClient("http://user:hidden@a.example/v1", KEY)
    assert "hunter2" not in f"{client!r} {client.redactor!r}"
    assert "hidden" not in f"{client!r} {client.redactor!r} {client.endpoint('x')!r} {client.endpoint('x')}"
