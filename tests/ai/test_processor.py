"""AI jobs against a real server: texts, settings, and what each refusal makes of the job."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from beeq.ai.client import Limits
from beeq.ai.errors import AIFailed
from beeq.errors import Discard, Retry
from beeq.processors.ai import AIProcessor
from beeq.processors.base import ProcessorSettings
from tests.ai.server import (
    CHAT,
    HEAD,
    IMAGES,
    KEY,
    PNG,
    SCRIPT,
    AIServer,
    Make,
    ai_job,
    answer,
    chat,
    content,
    whole_text_of,
)
from tests.media.clips import tree
from tests.support.certificate import CERTIFICATE
from tests.webhooks.receiver import Receiver, drip, send, send_for_ever

# --- Texts ----------------------------------------------------------------------------------


async def test_a_script_is_asked_for_as_json_and_comes_back_as_one(server: AIServer, make: Make) -> None:
    server.on(CHAT, chat(f"```json\n{json.dumps(SCRIPT)}\n```"))
    job = ai_job("script", parameters={"genre": "nature", "größe": 2**70})
    assert await make()(job) == SCRIPT
    assert (job.reports[0], job.reports[-1]) == (0, 100)
    (request,) = server.requests
    assert request.route == CHAT
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.json["model"] == "texts"
    assert request.json["response_format"] == {"type": "json_object"}
    system, user = request.json["messages"]
    assert (system["role"], user["role"]) == ("system", "user")
    assert '"scenes"' in system["content"]
    assert user["content"].startswith("a bee\n\n")
    assert json.loads(user["content"].partition(":\n")[2]) == {"genre": "nature", "größe": 2**70}


async def test_a_script_needs_no_prompt(server: AIServer, make: Make) -> None:
    server.on(CHAT, chat(json.dumps(SCRIPT)))
    assert await make()(ai_job("script", None, parameters={"genre": "nature"})) == SCRIPT
    assert server.requests[0].json["messages"][1]["content"].endswith('\n{"genre":"nature"}')


async def test_a_description_is_the_models_text(server: AIServer, make: Make) -> None:
    server.on(CHAT, chat("A meadow.\nBees."))
    result = await make()(ai_job("scene-description", parameters={"mood": "calm"}, modelId="own-model"))
    assert result == {"text": "A meadow.\nBees."}
    (request,) = server.requests
    assert request.json["model"] == "own-model"
    assert "response_format" not in request.json
    assert request.json["messages"][1]["content"] == 'a bee\n\nParameters, in JSON:\n{"mood":"calm"}'


async def test_a_text_without_script_fails_and_the_next_attempt_asks(server: AIServer, make: Make) -> None:
    server.on(CHAT, chat("I would rather not."), chat(json.dumps(SCRIPT)))
    job, processor = ai_job("script"), make()
    with pytest.raises(AIFailed, match="no script"):
        await processor(job)
    assert 100 not in job.reports
    assert await processor(job) == SCRIPT
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert keys == [f"beeq-{job.id}", f"beeq-{job.id}~1"]


async def test_one_connection_serves_job_after_job(server: AIServer, make: Make) -> None:
    server.on(CHAT, chat("A meadow."))
    processor = make()
    for _ in range(5):
        await processor(ai_job("scene-description"))
    assert server.connections == 1
    await processor.close()
    await server.until_open(0)
    await processor(ai_job("scene-description"))
    assert server.connections == 2


async def test_no_cookie_is_kept(server: AIServer, make: Make) -> None:
    server.on(CHAT, answer({"choices": [{"message": {"content": "x"}}]}, set_cookie="a=b; Path=/"))
    processor = make()
    for _ in range(2):
        await processor(ai_job("scene-description"))
    assert [request for request in server.requests if "cookie" in request.headers] == []


async def test_the_environments_proxy_and_netrc_are_not_asked(
    server: AIServer, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    server.on(CHAT, chat("A meadow."))
    await make(ai_api_key=None)(ai_job("scene-description"))
    assert "authorization" not in server.requests[0].headers


async def test_without_a_key_the_base_urls_user_is_sent(server: AIServer, make: Make) -> None:
    server.on(CHAT, chat("A meadow."))
    base = f"http://us%40er:pass%2Fword@127.0.0.1:{server.port}/v1/"
    await make(ai_base_url=base, ai_api_key=None)(ai_job("scene-description"))
    await make(ai_base_url=base)(ai_job("scene-description"))
    basic, bearer = (request.headers["authorization"] for request in server.requests)
    assert base64.b64decode(basic.removeprefix("Basic ")) == b"us@er:pass/word"
    assert bearer == f"Bearer {KEY}"


# --- Settings -------------------------------------------------------------------------------


@pytest.mark.parametrize("job_type", ["script", "scene-description", "image", "video"])
async def test_without_a_base_url_a_job_fails_at_once(make: Make, job_type: str) -> None:
    with pytest.raises(Discard, match="BEEQ_AI_BASE_URL is not set"):
        await make(ai_base_url=None)(ai_job(job_type))


@pytest.mark.parametrize(
    ("job_type", "setting"),
    [("script", "TEXT"), ("scene-description", "TEXT"), ("image", "IMAGE"), ("video", "VIDEO")],
)
async def test_without_a_model_a_job_fails_at_once(
    server: AIServer, make: Make, job_type: str, setting: str
) -> None:
    none = {"ai_text_model": None, "ai_image_model": None, "ai_video_model": None}
    with pytest.raises(Discard, match=f"BEEQ_AI_{setting}_MODEL is not set"):
        await make(**none)(ai_job(job_type))
    assert server.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "ftp://a/",
        "http://",
        "http://u:hunter2@:80/",
        "http://a:0/",
        "http://a:70000/",
        "http://a/#b",
    ],
)
def test_a_useless_base_url_is_noticed_before_the_first_job(url: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_AI_BASE_URL must be") as caught:
        AIProcessor(ProcessorSettings(ai_base_url=url))
    assert "hunter2" not in whole_text_of(caught.value)


@pytest.mark.parametrize("key", ["hunter2\n", "hunter2 x", "hunter2é", "hunter2\0"])
def test_a_key_that_no_header_can_hold_is_refused_at_the_start(key: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_AI_API_KEY must be printable") as caught:
        AIProcessor(ProcessorSettings(ai_base_url="http://a/v1", ai_api_key=key))
    assert "hunter2" not in whole_text_of(caught.value)


@pytest.mark.parametrize(
    ("job_type", "name", "value"),
    [("image", "style", 5), ("image", "style", ""), ("video", "imageUrl", ["x"]), ("video", "imageUrl", "")],
)
async def test_a_parameter_of_the_wrong_kind_fails_at_once(
    server: AIServer, make: Make, job_type: str, name: str, value: Any
) -> None:
    with pytest.raises(Discard, match=f"{name} must be text"):
        await make()(ai_job(job_type, parameters={name: value}))
    assert server.requests == []


# --- Refusals and failures ------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 409, 422, 451])
async def test_what_the_provider_refuses_fails_the_job_at_once(
    server: AIServer, make: Make, status: int
) -> None:
    body = {"error": {"message": "no such\x1b[31m model" + " and so on" * 100}}
    server.on(CHAT, answer(body, status, retry_after="1"))
    with pytest.raises(Discard, match=rf"^AI provider, script: status {status}: no such\[31m mod") as caught:
        await make()(ai_job("script"))
    assert len(str(caught.value)) <= 200
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_a_busy_provider_is_left_alone_as_long_as_it_wants(
    server: AIServer, make: Make, status: int
) -> None:
    processor = make()
    job = ai_job("image")
    job.options = {"backoff": {"strategy": "exponential", "delay": 2000}}
    at = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    for header, low_ms, high_ms in (
        ("3", 3000, 3000),
        ("999999", 86_400_000, 86_400_000),
        (at, 500_000, 600_000),
    ):
        server.on(IMAGES, answer({"error": "busy"}, status, retry_after=header))
        with pytest.raises(Retry, match=f"status {status}: busy") as caught:
            await processor(job)
        assert isinstance(caught.value.after, int)
        assert low_ms <= caught.value.after <= high_ms
    for header in ("1", "2", "soon", "-5", ""):  # not longer than the backoff, which decides then
        server.on(IMAGES, answer({"error": "busy"}, status, retry_after=header))
        with pytest.raises(AIFailed, match=f"status {status}: busy"):
            await processor(job)
    keys = {request.headers["idempotency-key"] for request in server.requests}
    assert keys == {f"beeq-{job.id}"}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(server: AIServer, make: Make, status: int) -> None:
    async with AIServer() as elsewhere:
        for origin in (server.origin, elsewhere.origin):
            server.on(CHAT, answer({}, status, location=f"{origin}/v1/more"))
            with pytest.raises(AIFailed, match=f"status {status}, and redirects are not followed"):
                await make()(ai_job("script"))
        assert elsewhere.connections == 0
    assert {request.route for request in server.requests} == {CHAT}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (content(b""), "not JSON"),
        (content(b"<html>"), "not JSON"),
        (content(b'{"choices": NaN}'), "not JSON"),
        (content(b"\x1f\x8b packed", content_encoding="gzip"), "cannot be read: it is packed, and damaged"),
        (content(b"[" * 900), "not JSON"),
        (answer(["choices"]), "not a chat completion"),
        (answer({"choices": "x" * 20_000}), r"longer than \d+ bytes"),
        (send_for_ever(HEAD + b"\r\n", b"x" * 1000), r"longer than \d+ bytes"),
        (send_for_ever(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000), "broke off"),
        (drip(HEAD + b"content-length: 900\r\n\r\n", b" "), "no response in time"),
        (drip(b"", b"H"), "no response in time"),
        (send(hang_up=False), "no response in time"),
        (send(HEAD + b"content-length: 500\r\n\r\n{}"), "broke off"),
        (send(HEAD + b"content-length: 500\r\n\r\n{}", hang_up=False), "no response in time"),
        (send(HEAD + b"content-length: x\r\n\r\n{}"), "broke off"),
        (send(HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nabc"), "broke off"),
        (answer({}, 302, location="http://[::1"), "redirects are not followed"),
        (send(b""), "broke off"),
        (send(b"220 mail server ready\r\n"), "broke off"),
    ],
)
async def test_an_answer_that_cannot_be_read_fails_the_attempt(
    server: AIServer, make: Make, script: Any, reason: str
) -> None:
    server.on(CHAT, script)
    # Short only for what never ends.
    request_s = 0.3 if "in time" in reason else 60
    processor = make(Limits(request_s=request_s, json_bytes=1000, text_bytes=1000))
    async with asyncio.timeout(60):
        with pytest.raises(AIFailed, match=f"AI provider.*{reason}"):
            await processor(ai_job("script"))
    await processor.close()
    await server.until_open(0)


async def test_the_reason_of_a_refusal_is_not_waited_for_long(
    server: AIServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beeq.ai.exchange._ERROR_S", 0.1)
    server.on(CHAT, drip(b"HTTP/1.1 400 No\r\ncontent-length: 99999\r\n\r\nbecause", b" "))
    async with asyncio.timeout(10):
        with pytest.raises(Discard, match="status 400: because"):
            await make()(ai_job("script"))
    server.on(CHAT, send_for_ever(b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\n\r\n", b"busy " * 100))
    with pytest.raises(Retry, match="status 503: busy busy") as caught:
        await make()(ai_job("script"))
    assert caught.value.after == 7000
    await server.until_open(0)


async def test_a_certificate_that_nobody_vouches_for_is_refused(make: Make, tmp_path: Path) -> None:
    async with Receiver(tls=tmp_path) as receiver:
        with pytest.raises(AIFailed, match="could not connect: .*CERTIFICATE_VERIFY_FAILED"):
            await make(ai_base_url=receiver.url("/v1"))(ai_job("script"))
    assert receiver.requests == []


async def test_jobs_share_a_connection_over_tls(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting = ssl.create_default_context(cadata=CERTIFICATE)
    trusting.check_hostname = False  # it is another host's
    monkeypatch.setattr(httpx, "create_ssl_context", lambda: trusting)
    async with Receiver(chat("A meadow."), tls=tmp_path) as receiver:
        processor = make(ai_base_url=receiver.url("/v1"))
        for _ in range(2):
            assert await processor(ai_job("scene-description")) == {"text": "A meadow."}
        assert receiver.connections == 1
        await processor.close()
        await receiver.until_open(0)


async def test_a_provider_that_is_away_fails_the_attempt(make: Make) -> None:
    base = "http://user:hidden-password@127.0.0.1:9/v1"
    with pytest.raises(AIFailed, match="AI provider, script: could not connect: Connection ref") as caught:
        await make(ai_base_url=base)(ai_job("script"))
    assert "hidden" not in whole_text_of(caught.value)


# --- Cancelling -----------------------------------------------------------------------------


@pytest.mark.parametrize("again_after", [None, 0, 1, 2])
async def test_a_cancelled_job_leaves_no_connection_and_no_file(
    server: AIServer, make: Make, tmp_path: Path, again_after: int | None
) -> None:
    server.on(IMAGES, answer({"data": [{"url": "/a.png"}]}))
    server.on("GET /a.png", content(PNG))
    processor = make()
    done = 0
    for turns in range(120):
        task = asyncio.create_task(processor(ai_job("image")))
        for _ in range(turns):
            await asyncio.sleep(0)  # a turn of the loop: the cancellation comes at the next step
        task.cancel()
        if again_after is not None:
            for _ in range(again_after):
                await asyncio.sleep(0)  # so the second one comes while the first is cleaned up after
            task.cancel()
        await asyncio.wait({task}, timeout=5)
        done += not task.cancelled()
        assert [*tree(tmp_path)] in ([], [f"{ai_job('image').id}.png"])
    assert 0 < done < 120
    await processor.close()
    await server.until_open(0)


async def test_a_job_cancelled_in_the_middle_closes_its_connection(
    server: AIServer, make: Make, tmp_path: Path
) -> None:
    server.on(CHAT, send(hang_up=False))
    server.on(IMAGES, answer({"data": [{"url": "/a.png"}]}, connection="close"))
    server.on("GET /a.png", send(HEAD + b"content-length: 900\r\n\r\n" + PNG, hang_up=False))
    processor = make()
    for job, route in ((ai_job("script"), CHAT), (ai_job("image"), "GET /a.png")):
        task = asyncio.create_task(processor(job))
        await server.until_asked(route)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.until_open(0)
    assert tree(tmp_path) == {}
