"""AI jobs against a real server: texts and pictures, what each refusal makes of the job, and secrets."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import traceback
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from beeq.ai.client import AIClient, Limits
from beeq.ai.errors import AIFailed
from beeq.errors import Discard, Retry
from beeq.media.errors import MediaFailed
from beeq.processors.ai import AIProcessor
from beeq.processors.base import ProcessorSettings
from tests.integration.ai_server import PNG, SCRIPT, AIJob, AIServer, answer, chat, content, image
from tests.integration.webhook_receiver import drip, send, send_for_ever

KEY = "sk-very/secret+key"
CHAT = "POST /v1/chat/completions"
IMAGES = "POST /v1/images/generations"
JPEG = b"\xff\xd8\xff\xe0 jpeg"
WEBP = b"RIFF\x10\0\0\0WEBPVP8 "

Make = Callable[..., AIProcessor]


@pytest.fixture
async def server() -> AsyncIterator[AIServer]:
    async with AIServer() as server:
        yield server


@pytest.fixture
async def make(server: AIServer, tmp_path: Path) -> AsyncIterator[Make]:
    """``make(limits=…, **settings)``: a processor that uses the server and writes into ``tmp_path``."""
    made: list[AIProcessor] = []

    def make(limits: Limits | None = None, **settings: Any) -> AIProcessor:
        defaults = {
            "media_root": tmp_path,
            "ai_base_url": server.url,
            "ai_api_key": KEY,
            "ai_text_model": "texts",
            "ai_image_model": "pictures",
            "ai_video_model": "films",
            "ai_poll_interval_ms": 5,
        }
        made.append(AIProcessor(ProcessorSettings(**(defaults | settings)), limits=limits))
        return made[-1]

    yield make
    for processor in made:
        await processor.close()


def ai_job(job_type: str, prompt: str | None = "a bee", **more: Any) -> AIJob:
    return AIJob({"type": job_type, "prompt": prompt, "parameters": more.pop("parameters", {}), **more})


def whole_text_of(error: BaseException) -> str:
    """Return all that would be shown of an error."""
    return f"{error!r} {''.join(traceback.format_exception(error))}"


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


async def test_a_text_that_is_no_script_fails_the_attempt_and_the_next_asks_anew(
    server: AIServer, make: Make
) -> None:
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
        "http://a/?b",
    ],
)
def test_a_useless_base_url_is_noticed_before_the_first_job(url: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_AI_BASE_URL must be") as caught:
        AIProcessor(ProcessorSettings(ai_base_url=url))
    assert "hunter2" not in whole_text_of(caught.value)


@pytest.mark.parametrize("key", ["hunter2\n", "hunter2 x", "hunter2é", "hunter2\0"])
def test_a_key_that_no_header_can_hold_is_noticed_before_the_first_job(key: str) -> None:
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


QUICK = Limits(connect_s=5, order_s=0.3, json_bytes=1000)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (content(b""), "not JSON"),
        (content(b"<html>"), "not JSON"),
        (content(b'{"choices": NaN}'), "not JSON"),
        (content(b"\x1f\x8b packed", content_encoding="gzip"), "not JSON"),
        (content(b"[" * 900), "not JSON"),
        (answer(["choices"]), "no chat completion"),
        (answer({"choices": "x" * 2000}), "longer than 1000 bytes"),
        (send_for_ever(HEAD + b"\r\n", b"x" * 1000), "longer than 1000 bytes"),
        (send_for_ever(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 1000), "broke off"),
        (drip(HEAD + b"content-length: 900\r\n\r\n", b" "), "no answer in time"),
        (drip(b"", b"H"), "no answer in time"),
        (send(hang_up=False), "no answer in time"),
        (send(HEAD + b"content-length: 500\r\n\r\n{}"), "broke off"),
        (send(HEAD + b"content-length: 500\r\n\r\n{}", hang_up=False), "no answer in time"),
        (send(HEAD + b"content-length: x\r\n\r\n{}"), "broke off"),
        (send(HEAD + b"transfer-encoding: chunked\r\n\r\n5\r\nabc"), "broke off"),
        (send(b""), "broke off"),
        (send(b"220 mail server ready\r\n"), "broke off"),
    ],
)
async def test_an_answer_that_cannot_be_read_fails_the_attempt(
    server: AIServer, make: Make, script: Any, reason: str
) -> None:
    server.on(CHAT, script)
    processor = make(QUICK)
    async with asyncio.timeout(10):
        with pytest.raises(AIFailed, match=f"AI provider.*{reason}"):
            await processor(ai_job("script"))
    await processor.close()
    await server.until_open(0)


async def test_the_reason_of_a_refusal_is_not_waited_for_long(
    server: AIServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beeq.ai.client._ERROR_S", 0.1)
    server.on(CHAT, drip(b"HTTP/1.1 400 No\r\ncontent-length: 99999\r\n\r\nbecause", b" "))
    async with asyncio.timeout(10):
        with pytest.raises(Discard, match="status 400: because"):
            await make()(ai_job("script"))
    server.on(CHAT, send_for_ever(b"HTTP/1.1 503 Busy\r\nretry-after: 7\r\n\r\n", b"busy " * 100))
    with pytest.raises(Retry, match="status 503: busy busy") as caught:
        await make()(ai_job("script"))
    assert caught.value.after == 7000
    await server.until_open(0)


async def test_a_provider_that_is_away_fails_the_attempt(make: Make) -> None:
    base = "http://user:hidden-password@127.0.0.1:9/v1"
    with pytest.raises(AIFailed, match="AI provider, script: could not connect: Connection ref") as caught:
        await make(ai_base_url=base)(ai_job("script"))
    assert "hidden" not in whole_text_of(caught.value)


# --- Pictures -------------------------------------------------------------------------------


@pytest.mark.parametrize(("picture", "suffix"), [(PNG, "png"), (JPEG, "jpg"), (WEBP, "webp")])
async def test_a_picture_is_kept_under_the_media_root_as_what_it_is(
    server: AIServer, make: Make, tmp_path: Path, picture: bytes, suffix: str
) -> None:
    server.on(IMAGES, image(picture))
    job = ai_job("image", parameters={"style": "vivid"})
    result = await make()(job)
    assert result == {"path": f"{job.id}.{suffix}", "bytes": len(picture)}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {result["path"]: picture}
    (request,) = server.requests
    assert request.json == {"model": "pictures", "prompt": "a bee", "n": 1, "style": "vivid"}
    assert job.reports[-1] == 100


async def test_an_id_that_is_no_name_stays_inside_the_media_root(
    server: AIServer, make: Make, tmp_path: Path
) -> None:
    server.on(IMAGES, image())
    job = ai_job("image")
    job.id = "../../ü/%2e"
    result = await make()(job)
    (path,) = tmp_path.iterdir()
    assert path.name == result["path"]
    assert "/" not in result["path"]
    key = server.requests[0].headers["idempotency-key"]
    assert key.isascii()
    assert key.startswith("beeq-%2E")


async def test_a_picture_is_replaced_when_the_job_is_run_again(
    server: AIServer, make: Make, tmp_path: Path
) -> None:
    server.on(IMAGES, image(), image(PNG + b"more"))
    processor, job = make(), ai_job("image")
    for size in (len(PNG), len(PNG) + 4):
        assert (await processor(job))["bytes"] == size
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (image(b""), "no picture in its answer"),
        (image(b"<svg/>"), "no PNG, JPEG or WebP"),
        (image(b"\x89PN"), "no PNG, JPEG or WebP"),
        (image(PNG + b"x" * 1100), "picture is longer than 1000 bytes"),
        (image(PNG + b"x" * 200_000), "longer than"),
        (answer({"data": [{"b64_json": "?"}]}), "not base64"),
        (answer({"data": [{"url": "file:///etc/passwd"}]}), "url in its answer"),
        (answer({"data": [{"url": "data:image/png;base64,iVBORw0KGgo="}]}), "url in its answer"),
    ],
)
async def test_a_picture_of_no_use_fails_the_attempt_and_leaves_no_file(
    server: AIServer, make: Make, tmp_path: Path, script: Any, reason: str
) -> None:
    server.on(IMAGES, script)
    with pytest.raises(AIFailed, match=reason):
        await make(Limits(image_bytes=1000, json_bytes=1000))(ai_job("image"))
    assert list(tmp_path.iterdir()) == []


async def test_a_picture_that_cannot_be_written_is_not_ordered(
    server: AIServer, make: Make, tmp_path: Path
) -> None:
    with pytest.raises(MediaFailed, match="cannot be opened"):
        await make(media_root=tmp_path / "gone")(ai_job("image"))
    assert server.requests == []


async def test_a_full_disk_fails_the_attempt_and_leaves_no_file(
    server: AIServer, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(_fd: int, _content: Any) -> int:
        raise OSError(28, "No space left on device")

    server.on(IMAGES, image())
    processor, job = make(), ai_job("image")
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        with pytest.raises(MediaFailed, match="cannot be written: No space left on device"):
            await processor(job)
    assert list(tmp_path.iterdir()) == []
    await processor(job)
    # The same order: it is not paid for twice where the provider knows the key.
    assert len({request.headers["idempotency-key"] for request in server.requests}) == 1


@pytest.mark.parametrize(
    "form", ["{origin}/files/a.png?x=%2F", "/files/a.png?x=%2F", "{odd}/files/a.png?x=%2F"]
)
async def test_a_url_of_the_providers_own_is_fetched_with_the_key(
    server: AIServer, make: Make, tmp_path: Path, form: str
) -> None:
    url = form.format(origin=server.origin, odd=f"HTTP://me:you@127.0.0.1:{server.port}")
    server.on(IMAGES, answer({"data": [{"url": url}]}))
    server.on("GET /files/a.png?x=%2F", content(PNG))
    job = ai_job("image")
    assert await make()(job) == {"path": f"{job.id}.png", "bytes": len(PNG)}
    assert server.requests[1].headers["authorization"] == f"Bearer {KEY}"
    assert (tmp_path / f"{job.id}.png").read_bytes() == PNG


@pytest.mark.parametrize(
    "form",
    [
        "{foreign}/a.png?sig=x",
        "https://127.0.0.1:{port}/a.png",
        "http://localhost:{port}/a.png",
        "//127.0.0.1:{foreign_port}/a.png",
        "http://127.0.0.1:{port}@127.0.0.1:{foreign_port}/a.png",
        "http://127.0.0.1.:{port}/a.png",
    ],
)
async def test_a_url_of_somebody_elses_is_the_result_and_never_fetched(
    server: AIServer, make: Make, tmp_path: Path, form: str
) -> None:
    async with AIServer() as foreign:
        url = form.format(foreign=foreign.origin, port=server.port, foreign_port=foreign.port)
        server.on(IMAGES, answer({"data": [{"url": url}]}))
        assert await make()(ai_job("image")) == {"url": url}
        assert foreign.connections == 0
    assert len(server.requests) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "error", "reason"),
    [
        (answer({}, 302, location="/elsewhere"), AIFailed, "redirects are not followed"),
        (answer({"error": "gone"}, 404), Discard, "status 404: gone"),
        (content(b"x" * 900), AIFailed, "no PNG"),
        (content(PNG + b"x" * 2000), AIFailed, "longer than 1000 bytes"),
        (content(b""), AIFailed, "picture is empty"),
        (send(HEAD + b"content-length: 900\r\n\r\n" + PNG), AIFailed, "broke off"),
        (drip(HEAD + b"content-length: 900\r\n\r\n" + PNG, b"x", 0.05), AIFailed, "no answer in time"),
        (send(HEAD + b"content-length: 900\r\n\r\n" + PNG, hang_up=False), AIFailed, "no answer in time"),
    ],
)
async def test_a_picture_that_cannot_be_fetched_leaves_no_file(
    server: AIServer, make: Make, tmp_path: Path, script: Any, error: type[Exception], reason: str
) -> None:
    server.on(IMAGES, answer({"data": [{"url": "/a.png"}]}))
    server.on("GET /a.png", script)
    limits = Limits(image_bytes=1000, download_s=0.4, silence_s=0.2)
    async with asyncio.timeout(10):
        with pytest.raises(error, match=reason):
            await make(limits)(ai_job("image"))
    assert list(tmp_path.iterdir()) == []


# --- Secrets --------------------------------------------------------------------------------

SPELLINGS = [KEY, quote(KEY, safe=""), quote(KEY), KEY.replace("/", "\\/"), "\0".join(KEY)]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
@pytest.mark.parametrize("is_json", [True, False])
async def test_an_echoed_key_is_masked_in_every_message(
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
    assert "secret" not in shown
    if status != 200 or is_json:
        assert "Incorrect API key: ***." in str(caught.value)


async def test_a_password_in_the_base_url_is_masked_like_a_key(server: AIServer, make: Make) -> None:
    token = base64.b64encode(b"user:hidden/password").decode()
    server.on(CHAT, answer({"error": f"hidden/password, hidden%2fpassword or {token}?"}, 401))
    base = f"http://user:hidden%2Fpassword@127.0.0.1:{server.port}/v1"
    for key in (None, KEY):
        with pytest.raises(Discard) as caught:
            await make(ai_base_url=base, ai_api_key=key)(ai_job("script"))
        assert "hidden" not in whole_text_of(caught.value)
        assert str(caught.value).count("***") == (3 if key is None else 2)


async def test_an_echoed_key_is_masked_in_results(server: AIServer, make: Make) -> None:
    script = {"title": f"of {KEY}", "scenes": [{"description": quote(KEY, safe=""), KEY: [KEY]}]}
    server.on(CHAT, chat(json.dumps(script)), chat(f"The key is {KEY}"))
    server.on(IMAGES, answer({"data": [{"url": f"https://a.example/?key={KEY}"}]}))
    processor = make()
    masked = {"title": "of ***", "scenes": [{"description": "***", "***": ["***"]}]}
    assert await processor(ai_job("script")) == masked
    assert await processor(ai_job("scene-description")) == {"text": "The key is ***"}
    assert await processor(ai_job("image")) == {"url": "https://a.example/?key=***"}


async def test_a_url_that_holds_the_key_is_not_fetched_since_urls_are_logged(
    server: AIServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server.on(IMAGES, answer({"data": [{"url": f"/a.png?key={quote(KEY, safe='')}"}]}))
    with pytest.raises(AIFailed, match="holds the key") as caught:
        await make()(ai_job("image"))
    assert "secret" not in whole_text_of(caught.value) + caplog.text
    assert len(server.requests) == 1


def test_no_secret_is_in_the_repr_of_what_holds_it() -> None:
    client = AIClient("http://user:hidden@a.example/v1", KEY)
    assert "secret" not in f"{client!r} {client.masker!r}"
    assert "hidden" not in f"{client!r} {client.masker!r} {client.endpoint('x')!r} {client.endpoint('x')}"


# --- Cancelling -----------------------------------------------------------------------------


@pytest.mark.parametrize("again_after", [None, 0, 1, 2])
async def test_wherever_a_job_is_cancelled_no_connection_and_no_file_is_left(
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
        names = [path.name for path in tmp_path.iterdir()]
        assert names in ([], [f"{ai_job('image').id}.png"])
    assert 0 < done < 120
    await processor.close()
    await server.until_open(0)


async def test_a_job_that_is_cancelled_in_the_middle_closes_its_connection(
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
    assert list(tmp_path.iterdir()) == []
