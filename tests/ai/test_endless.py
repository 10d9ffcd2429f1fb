"""Provider's and strangers' responses without an end, in every part that has none by itself."""

from __future__ import annotations

import asyncio
import gzip
import time
from pathlib import Path

import pytest

from beeq.ai.errors import AIFailed
from tests.ai.server import CHAT, HEAD, AIServer, Make, ai_job, chat
from tests.ai.test_provider import Forwarder
from tests.support.certificate import CERTIFICATE
from tests.webhooks.receiver import Receiver, Script, send, send_for_ever

pytestmark = pytest.mark.external  # answers without an end take long

EARLY = b"HTTP/1.1 103 Early Hints\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
DESCRIPTION = ai_job("scene-description")
#: Without the bounds these took all the processor's time there was, for minutes.
CPU_S = 10.0

ENDLESS = {
    "interim responses": (send_for_ever(b"", (EARLY + b"\r\n") * 1000), "did not end: more than 32 interim"),
    "one interim head": (send_for_ever(EARLY, b"a: b\r\n" * 1000), "did not end: more than 32 interim"),
    "empty lines": (send_for_ever(b"", b"\r\n" * 1000), "did not end: more than 32 interim"),
    "header lines": (send_for_ever(HEAD, b"a: b\r\n" * 1000), "was not HTTP"),
    "chunks of one byte": (send_for_ever(CHUNKED, b"1\r\n \r\n" * 1000), "too many small pieces"),
    "chunks with long extensions": (
        send_for_ever(CHUNKED, b"1;" + b"e" * 80_000 + b"\r\n \r\n"),
        "did not end: more than",
    ),
    "trailers": (send_for_ever(CHUNKED + b"2\r\n{}\r\n0\r\n", b"a: b\r\n" * 1000), "was not HTTP"),
    "a body": (send_for_ever(HEAD + b"\r\n", b" " * 60_000), "longer than"),
    "empty packed parts": (send_for_ever(HEAD + b"\r\n", gzip.compress(b"") * 1000), "10000 parts"),
}


@pytest.mark.parametrize(("script", "reason"), ENDLESS.values(), ids=ENDLESS)
async def test_a_provider_without_an_end_fails_the_attempt(
    server: AIServer, make: Make, script: Script, reason: str
) -> None:
    server.on(CHAT, script)
    processor = make()
    async with asyncio.timeout(60):
        began_s = time.process_time()
        with pytest.raises(AIFailed, match=reason):
            await processor(DESCRIPTION)
        assert time.process_time() - began_s < CPU_S
        await server.until_open(0)


async def test_a_few_interim_responses_are_no_fault(server: AIServer, make: Make) -> None:
    async def patient(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((EARLY + b"\r\n") * 5)
        await chat("A bee.")(reader, writer)

    server.on(CHAT, patient)
    assert await make()(DESCRIPTION) == {"text": "A bee."}


async def test_interim_responses_in_a_tunnel_end_too(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text(CERTIFICATE)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    endless = send_for_ever(b"", (EARLY + b"\r\n") * 1000)
    async with Receiver(endless, tls=tmp_path) as provider, Forwarder(provider.port) as proxy:
        processor = make(ai_base_url="https://hooks.example/v1", ai_proxy=f"http://127.0.0.1:{proxy.port}")
        async with asyncio.timeout(30):
            with pytest.raises(AIFailed, match="did not end: more than 32 interim"):
                await processor(DESCRIPTION)
            await processor.close()
    assert proxy.heads[0].startswith("CONNECT")


async def test_interim_responses_to_the_tunnels_request_end(server: AIServer, make: Make) -> None:
    server.on("CONNECT hooks.example:443", ENDLESS["interim responses"][0])
    processor = make(ai_base_url="https://hooks.example/v1", ai_proxy=server.origin)
    async with asyncio.timeout(30):
        with pytest.raises(AIFailed, match="did not end: more than 32 interim"):
            await processor(DESCRIPTION)


async def test_a_body_of_few_and_small_pieces_is_read(server: AIServer, make: Make) -> None:
    text = b'{"choices": [{"message": {"content": "A bee."}}]}'
    pieces = b"".join(b"1\r\n%c\r\n" % byte for byte in text)
    server.on(CHAT, send(CHUNKED, pieces, b"0\r\n\r\n"))
    assert await make()(DESCRIPTION) == {"text": "A bee."}
