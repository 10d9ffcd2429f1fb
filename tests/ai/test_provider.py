"""How a provider is asked: a query in its base URL, headers of one's own, a proxy, one's own authorities."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from pathlib import Path
from typing import Any, Self

import pytest

from beeq.ai.client import AIClient
from beeq.ai.errors import AIFailed
from beeq.ai.provider import Provider
from beeq.errors import Discard
from beeq.processors.ai import AIProcessor
from beeq.processors.base import ProcessorSettings
from tests.ai.server import CHAT, KEY, AIServer, Make, ai_job, answer, chat, whole_text_of
from tests.support.certificate import CERTIFICATE
from tests.webhooks.receiver import Receiver, reply

DESCRIPTION = ai_job("scene-description")
SECRET = "s3cret/of+mine"


async def test_azures_dialect_is_a_query_and_a_header(server: AIServer, make: Make) -> None:
    server.on("POST /openai/v1/chat/completions?api-version=2025-04-01-preview", chat("A bee."))
    processor = make(
        ai_base_url=f"{server.origin}/openai/v1/?api-version=2025-04-01-preview",
        ai_api_key=None,
        ai_headers=json.dumps({"Api-Key": SECRET, "X-Org": "", "User-Agent": "ours"}),
    )
    assert await processor(DESCRIPTION) == {"text": "A bee."}
    (request,) = server.requests
    assert request.headers["api-key"] == SECRET
    assert request.headers["user-agent"] == "ours"
    assert "authorization" not in request.headers


def test_a_query_stays_behind_every_path() -> None:
    provider = Provider("https://a.example/v1?api-version=1&x=a%2Fb", None)
    url = provider.endpoint("videos", "a/b?c", "content")
    assert str(url) == "https://a.example/v1/videos/a%2Fb%3Fc/content?api-version=1&x=a%2Fb"


async def test_a_header_of_ones_own_wins(server: AIServer, make: Make) -> None:
    server.on(CHAT, chat("A bee."))
    await make(ai_headers='{"Authorization": "Token abcdef"}')(DESCRIPTION)
    assert server.requests[0].headers["authorization"] == "Token abcdef"


@pytest.mark.parametrize(
    "settings",
    [
        {"ai_headers": json.dumps({"api-key": SECRET})},
        {"ai_headers": json.dumps({"x-auth": f"Bearer {SECRET}"})},
        {"ai_headers": json.dumps({"x-auth": f"Basic {base64.b64encode(f'me:{SECRET}'.encode()).decode()}"})},
        {"query": f"?key={SECRET.replace('/', '%2F').replace('+', '%2B')}"},
    ],
)
async def test_secrets_of_every_setting_are_masked(
    server: AIServer, make: Make, caplog: pytest.LogCaptureFixture, settings: dict[str, str]
) -> None:
    caplog.set_level(logging.DEBUG)
    query = settings.pop("query", "")
    route = f"{CHAT}{query}"
    server.on(route, answer({"error": f"bad {SECRET}, s3cret%2Fof%2Bmine"}, 401), chat(f"It is {SECRET}."))
    processor = make(ai_base_url=f"{server.url}{query}", **settings)
    with pytest.raises(Discard, match=r"bad \*\*\*, \*\*\*") as caught:
        await processor(DESCRIPTION)
    assert await processor(DESCRIPTION) == {"text": "It is ***."}
    assert "s3cret" not in whole_text_of(caught.value) + caplog.text
    assert "s3cret" not in repr(ProcessorSettings(ai_headers=SECRET, ai_proxy=SECRET))


@pytest.mark.parametrize(
    "headers",
    [
        "s3cret",
        '["s3cret"]',
        '[["api-key", "s3cret"]]',
        '"s3cret"',
        '{"api-key": "s3cret"',
        '{"api key": "s3cret"}',
        '{"": "s3cret"}',
        '{"a\\nb": "s3cret"}',
        '{"api-key": 5}',
        '{"api-key": ["s3cret"]}',
        '{"api-key": {"s3cret": 1}}',
        '{"api-key": "s3cret\\r\\nx: y"}',
        '{"api-key": "s3crét"}',
        '{"api-key": "s3cret", "API-Key": "another"}',
        '{"Host": "s3cret"}',
        '{"content-length": "s3cret"}',
        '{"Idempotency-Key": "s3cret"}',
        "[" * 100_000,
    ],
)
def test_headers_that_cannot_be_sent_are_refused_at_the_start(headers: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_AI_HEADERS") as caught:
        AIProcessor(ProcessorSettings(ai_base_url="http://a/v1", ai_headers=headers))
    assert "s3cret" not in whole_text_of(caught.value)


# --- A proxy --------------------------------------------------------------------------------


class Forwarder:
    """An HTTP proxy on loopback that passes everything on to one port, whatever was asked for."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.heads: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head.decode("latin-1"))
        there, here = await asyncio.open_connection("127.0.0.1", self._port)
        if head.startswith(b"CONNECT"):
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        else:
            line, rest = head.split(b"\r\n", 1)
            method, target, version = line.split(b" ")
            path = b"/" + target.split(b"/", 3)[3]
            here.write(b" ".join((method, path, version)) + b"\r\n" + rest)
        try:
            await asyncio.gather(_pass_on(reader, here), _pass_on(there, writer))
        finally:
            writer.transport.abort()
            here.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_the_provider_is_asked_through_the_proxy(server: AIServer, make: Make) -> None:
    server.on("POST /v1/chat/completions", chat("A bee."))
    async with Forwarder(server.port) as proxy:
        processor = make(
            ai_base_url="http://provider.invalid/v1",
            ai_proxy=f"http://me:{SECRET.replace('/', '%2F')}@127.0.0.1:{proxy.port}",
        )
        assert await processor(DESCRIPTION) == {"text": "A bee."}
        await processor.close()
    (head,) = proxy.heads
    token = base64.b64encode(f"me:{SECRET}".encode()).decode()
    assert head.startswith("POST http://provider.invalid/v1/chat/completions HTTP/1.1\r\n")
    assert f"proxy-authorization: basic {token.lower()}" in head.lower()


async def test_tls_goes_through_the_proxy_and_ones_own_authority(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text(CERTIFICATE)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    said = json.dumps({"choices": [{"message": {"content": "A bee."}}]}).encode()
    async with Receiver(reply(200, said), tls=tmp_path) as provider, Forwarder(provider.port) as proxy:
        processor = make(ai_base_url="https://hooks.example/v1", ai_proxy=f"http://127.0.0.1:{proxy.port}")
        assert await processor(DESCRIPTION) == {"text": "A bee."}
        await processor.close()
    (head,) = proxy.heads
    assert head.startswith("CONNECT hooks.example:443 HTTP/1.1\r\n")
    assert KEY not in head
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_proxy_that_refuses_fails_the_attempt(make: Make, server: AIServer) -> None:
    server.on("CONNECT hooks.example:443", answer({}, 407))
    proxy = f"http://me:hidden-word@127.0.0.1:{server.port}"
    with pytest.raises(AIFailed, match="the proxy answered 407"):
        await make(ai_base_url="https://hooks.example/v1", ai_proxy=proxy)(DESCRIPTION)


@pytest.mark.parametrize("host", ["xn--", "xn--a"])
def test_a_base_url_without_a_real_name_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_AI_BASE_URL must be"):
        AIClient(f"http://{host}/v1")


@pytest.mark.parametrize(
    "proxy",
    [
        "",
        "s3cret",
        "socks5://s3cret@a:1080",
        "http://",
        "http://s3cret@a/path",
        "http://a:0",
        "http://a?s3cret",
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused(proxy: str) -> None:
    with pytest.raises(ValueError, match="BEEQ_AI_PROXY must be") as caught:
        AIClient("http://a/v1", proxy=proxy)
    assert "s3cret" not in whole_text_of(caught.value)


# --- The environment ------------------------------------------------------------------------


def test_the_settings_come_from_the_environment() -> None:
    settings = ProcessorSettings.from_environment(
        {
            "BEEQ_AI_BASE_URL": "https://a.example/v1?api-version=1",
            "BEEQ_AI_HEADERS": '{"api-key": "x"}',
            "BEEQ_AI_PROXY": "http://proxy:3128",
            "BEEQ_AI_ALLOW_HOSTS": "media.internal:9000",
            "BEEQ_AI_VIDEO_REFERENCE": "url",
        }
    )
    assert settings.ai_base_url == "https://a.example/v1?api-version=1"
    assert settings.ai_headers == '{"api-key": "x"}'
    assert settings.ai_proxy == "http://proxy:3128"
    assert settings.ai_allow_hosts == "media.internal:9000"
    assert settings.ai_video_reference == "url"
    assert ProcessorSettings.from_environment({}).ai_video_reference == "upload"


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ValueError, match="BEEQ_AI_VIDEO_REFERENCE must be upload or url"):
        ProcessorSettings.from_environment({"BEEQ_AI_VIDEO_REFERENCE": "fetch"})
    with pytest.raises(ValueError, match="BEEQ_AI_ALLOW_HOSTS must be a comma list.*'a b'"):
        AIProcessor(ProcessorSettings(ai_base_url="http://a/v1", ai_allow_hosts="a b"))
