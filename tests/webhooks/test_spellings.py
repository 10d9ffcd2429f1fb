"""However a host is written, one name is called; and what one URL brings about is not blamed on its origin."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beeq import JobFailed, Queue
from beeq.http_client.addresses import canonical
from beeq.http_client.guard import WebhookRefused
from beeq.processors.base import ProcessorSettings
from beeq.processors.webhook import WebhookProcessor
from beeq.webhooks.receivers.admission import ReceiverLimits
from beeq.webhooks.urls import endpoint_of, origin_of, target_of
from tests.support.certificate import CERTIFICATE
from tests.webhooks.receiver import Receiver, Script, reply, send

WAIT_MS = 30_000
HOST = "hooks.example"


@pytest.fixture
async def queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_queue: Callable[..., Queue]
) -> AsyncIterator[Queue]:
    """A queue whose worker trusts the receiver's certificate, and finds every name here."""
    pem = tmp_path / "trusted.pem"
    pem.write_text(CERTIFICATE)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    ask = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:
        return ask("127.0.0.1" if host.removesuffix(".").endswith(".example") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    settings = ProcessorSettings(webhook_allow_hosts=HOST)
    limits = ReceiverLimits(max_failures=2, first_pause_s=3600, longest_pause_s=3600)
    processor = WebhookProcessor(settings, receivers=limits)
    queue = make_queue()
    queue.process(processor)
    yield queue
    await processor.close()


async def outcome(queue: Queue, url: str) -> Any:
    """Return the status that a message to the URL got, or its error."""
    job = await queue.enqueue({"webhookUrl": url, "payload": {}})
    try:
        return (await job.result(WAIT_MS))["status"]
    except JobFailed as failed:
        return str(failed)


@pytest.mark.parametrize(
    "written",
    [
        f"https://{HOST}.:{{port}}/hook",
        f"https://{HOST}。:{{port}}/hook",
        f"HTTPS://{HOST.upper()}.:0{{port}}/hook?x#y",
    ],
)
async def test_a_host_written_oddly_is_called_by_its_one_name(
    queue: Queue, tmp_path: Path, written: str
) -> None:
    async with Receiver(tls=tmp_path) as receiver:
        for _ in range(3):
            assert await outcome(queue, written.format(port=receiver.port)) == 200
        assert await outcome(queue, receiver.url(host=HOST)) == 200

    assert set(receiver.server_names) == {HOST}
    assert {request.headers["host"] for request in receiver.requests} == {f"{HOST}:{receiver.port}"}


@pytest.mark.parametrize(
    "written",
    [
        f"https://{HOST}..:{{port}}/",
        f"https://.{HOST}:{{port}}/",
        "https://hooks%2eexample:{port}/",
        f"https://user@{HOST}:{{port}}/",
        f"https://{HOST}\\@evil.example:{{port}}/",
        f"https://{HOST}%00.evil.example:{{port}}/",
        "https://other.example:{port}/",
        f"http://{HOST}:{{port}}/",
    ],
)
async def test_a_url_that_fails_leaves_its_neighbour_alone(
    queue: Queue, tmp_path: Path, written: str
) -> None:
    async with Receiver(tls=tmp_path) as receiver:
        for _ in range(2):
            assert await outcome(queue, written.format(port=receiver.port)) != 200
        assert await outcome(queue, receiver.url(host=HOST)) == 200


async def below_tls(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer without TLS, though TLS was agreed on."""
    os.write(writer.get_extra_info("socket").fileno(), b"HTTP/1.1 500 No\r\n\r\n")


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.mark.parametrize(
    "evil",
    [
        reply(400), reply(404), reply(500), reply(421), send(), send(b"nonsense\r\n\r\n"), reset, below_tls,
        send(b"HTTP/1.1 100 Continue\r\n\r\n" * 40),
    ],
    ids=["400", "404", "500", "421", "hangs up", "no HTTP", "reset", "below TLS", "interim"],
)  # fmt: skip
async def test_what_one_path_answers_opens_no_other_circuit(
    queue: Queue, tmp_path: Path, evil: Script
) -> None:
    async def by_path(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_good = receiver.requests[-1].line.split()[1] == "/hook"
        await (reply() if is_good else evil)(reader, writer)

    async with Receiver(by_path, tls=tmp_path) as receiver:
        for path in ("//hook", "/%2e/hook", "/hook;x", "/Hook", "/"):
            await outcome(queue, receiver.url(path, HOST))
        assert await outcome(queue, receiver.url("/hook", HOST)) == 200


async def test_no_connection_and_no_tls_are_the_whole_origins(queue: Queue) -> None:
    async def no_tls(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(no_tls, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        for path in "ab":
            assert "could not connect" in await outcome(queue, f"https://{HOST}:{port}/{path}")
        job = await queue.enqueue({"webhookUrl": f"https://{HOST}:{port}/c", "payload": {}})
        waits = asyncio.Event()
        queue.on("postponed", lambda *_: waits.set())
        await asyncio.wait_for(waits.wait(), WAIT_MS / 1000)
        assert (await queue.get_job(str(job.id))) is not None


def test_a_url_too_long_once_encoded_is_refused() -> None:
    with pytest.raises(WebhookRefused, match="too long"):
        target_of(f"https://{HOST}/" + "é" * 11_000)


# --- The one form ------------------------------------------------------------------------------

LABEL = st.text("abcxyzABC019-_éßÀ。.", min_size=1, max_size=12)
HOSTS = st.one_of(LABEL, st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(lambda it: f"[{it}]"))
PATHS = st.text("/.;%2eE?&=#a é", max_size=12).map(lambda text: f"/{text}")


@given(st.sampled_from(["http", "HTTPS"]), HOSTS, st.sampled_from(["", ".", ":", ":80", ".:443"]), PATHS)
def test_the_one_form_is_final_and_keeps_the_path(scheme: str, host: str, rest: str, path: str) -> None:
    written = f"{scheme}://{host}{rest}{path}"
    try:
        target = target_of(written)
    except WebhookRefused:
        return
    again = target_of(str(target))
    assert (again.netloc, again.raw_path) == (target.netloc, target.raw_path)
    assert target.raw_path == httpx.URL(written).raw_path
    assert canonical(target.raw_host.decode()) == target.raw_host.decode()
    assert not target.raw_host.endswith(b".")
    assert endpoint_of(target).startswith(origin_of(target))
