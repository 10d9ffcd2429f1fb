"""Deliveries to a real receiver on loopback, which behaves or does not."""

from __future__ import annotations

import asyncio
import gzip
import re
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from beeq.http_client import connections
from beeq.http_client.addresses import AllowedHosts
from beeq.http_client.guard import WebhookRefused
from beeq.webhooks import delivery
from beeq.webhooks.delivery import DeliveryFailed, WebhookSender
from beeq.webhooks.keys import EndpointKeys
from tests.support.certificate import CERTIFICATE
from tests.webhooks.receiver import Receiver, Script, drip, reply, send, send_for_ever

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"a":"\xc3\xa9"}'
OK = b"HTTP/1.1 200 OK\r\n"

MakeSender = Callable[..., WebhookSender]


@pytest.fixture
async def make_sender() -> AsyncIterator[MakeSender]:
    """Makes senders that are closed, and have left no task behind, when the test ends."""
    before = asyncio.all_tasks()
    senders: list[WebhookSender] = []

    def make(allow: str = "127.0.0.1", secret: str | None = None, **options: Any) -> WebhookSender:
        keys = EndpointKeys.parse(secret, use="shared")
        senders.append(WebhookSender(AllowedHosts.parse(allow), keys, **options))
        return senders[-1]

    yield make
    for sender in senders:
        await sender.aclose()
    async with asyncio.timeout(5):
        while left := asyncio.all_tasks() - before - {asyncio.current_task()}:
            await asyncio.wait(left)


def loopback(**answers: list[str]) -> Callable[[str, int], Awaitable[list[str]]]:
    """Return a resolver that knows these names (``_`` for the dot), and the rest as 127.0.0.1."""

    async def resolve(host: str, _port: int) -> list[str]:
        return answers.get(host.replace(".", "_"), ["127.0.0.1"])

    return resolve


async def test_a_receiver_can_verify_the_signature_with_the_standard(
    make_sender: MakeSender,
) -> None:
    async with Receiver() as receiver:
        answer = await make_sender(secret=SECRET).deliver(receiver.url("/in?x=1#y"), "job 7 é", BODY)

    (request,) = receiver.requests
    assert Webhook(SECRET).verify(request.body, request.headers) == {"a": "é"}
    assert (answer.status, answer.retry_after_ms) == (200, None)
    assert request.line == "POST /in?x=1 HTTP/1.1"
    assert request.body == BODY
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert re.fullmatch(r"beeq/\d+\.\d+\.\d+", request.headers["user-agent"])
    assert request.headers["webhook-id"] == "job%207%20%C3%A9"
    assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60


async def test_without_a_secret_nothing_claims_to_be_signed(make_sender: MakeSender) -> None:
    async with Receiver() as receiver:
        await make_sender().deliver(receiver.url(), "7", BODY)

    assert "webhook-signature" not in receiver.requests[0].headers
    assert receiver.requests[0].headers["webhook-id"] == "7"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 301, 302, 307, 308, 400, 404, 410, 429, 500, 503])
async def test_every_status_is_an_answer_and_no_redirect_is_followed(
    make_sender: MakeSender, status: int
) -> None:
    async with Receiver() as elsewhere, Receiver(reply(status, b"", location=elsewhere.url())) as receiver:
        answer = await make_sender().deliver(receiver.url(), "7", BODY)

    assert answer.status == status
    assert len(receiver.requests) == 1
    assert elsewhere.connections == 0


async def test_informational_answers_are_not_the_answer(make_sender: MakeSender) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3
    async with Receiver(send(early, OK, b"content-length: 0\r\n\r\n")) as receiver:
        assert (await make_sender().deliver(receiver.url(), "7", BODY)).status == 200


@pytest.mark.parametrize(
    ("header", "expected_ms"), [("7", 7_000), ("Fri, 31 Dec 9999 23:59:59 GMT", 86_400_000), ("x", None)]
)
async def test_retry_after_is_read(make_sender: MakeSender, header: str, expected_ms: int | None) -> None:
    async with Receiver(reply(503, retry_after=header)) as receiver:
        answer = await make_sender().deliver(receiver.url(), "7", BODY)

    assert (answer.status, answer.retry_after_ms) == (503, expected_ms)


BOMB = gzip.compress(b"\0" * 20_000_000)


@pytest.mark.parametrize(
    "script",
    [
        send_for_ever(OK + b"transfer-encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 0x1000 + b"\r\n"),
        send_for_ever(OK + b"\r\n", b"x" * 0x1000),
        drip(OK + b"content-length: 100000000\r\n\r\n", b"x"),
        send(OK + b"content-length: 5\r\n\r\n", hang_up=False),
        send(OK + b"content-length: 100\r\n\r\nshort"),
        send(OK + b"content-length: 2\r\n\r\nlonger than that"),
        send(OK + b"transfer-encoding: chunked\r\n\r\nnonsense\r\n"),
        send(OK + b"transfer-encoding: chunked\r\n\r\n5\r\nab"),
        send(OK + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(BOMB) + BOMB),
    ],
    ids=["endless", "endless plain", "dripping", "silent", "short", "long", "broken", "cut off", "bomb"],
)
async def test_a_200_is_success_however_its_body_goes_on(
    make_sender: MakeSender, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "REST_TIMEOUT_S", 0.2)
    async with Receiver(script) as receiver, asyncio.timeout(5):
        answer = await make_sender().deliver(receiver.url(), "7", BODY)
        await receiver.until_open(0)  # a connection with a body left in it is not kept

    assert answer.status == 200


async def test_a_body_leaves_the_caller_half_of_its_time(make_sender: MakeSender) -> None:
    silent = send(OK + b"content-length: 5\r\n\r\n", hang_up=False)
    async with Receiver(silent) as receiver:
        async with asyncio.timeout(4):
            answer = await make_sender().deliver(receiver.url(), "7", BODY, timeout_s=4)

    assert answer.status == 200


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (send(), "closed the connection or did not answer in HTTP"),
        (send(b"SSH-2.0-OpenSSH_9 hunter2\r\n"), "closed the connection or did not answer in HTTP"),
        (send(OK[:9]), "closed the connection or did not answer in HTTP"),
        (send(b"HTTP/1.1 20"), "closed the connection or did not answer in HTTP"),
        (send(b"HTTP/1.1 2000 OK\r\n\r\n"), "closed the connection or did not answer in HTTP"),
        (send(b"HTTP/1.1 hunter2\r\n\r\n"), "closed the connection or did not answer in HTTP"),
        (send(b"HTTP/1.1 103 E\r\n\r\n"), "closed the connection or did not answer in HTTP"),
        (send(b"HTTP/1.1 103 E\r\nlink: hunter2\r\n", OK), "closed the connection or did not answer"),
        (send_for_ever(b"HTTP/1.1 103 E\r\n", b"a" * 1000), "did not come to its status line"),
        (send_for_ever(b"", b"HTTP/1.1 103 E\r\n\r\n" * 9), "did not come to its status line"),
        (drip(b"HTTP/1.1 103 E\r\n", b"a: b\r\n"), "did not answer in time"),
        (send(b"HTTP/1.1 20", hang_up=False), "did not answer in time"),
        (send(hang_up=False), "did not answer in time"),
    ],
    ids=[
        *(
            "nothing",
            "ssh",
            "half",
            "two digits",
            "four digits",
            "no digits",
            "hint",
            "in a hint",
            "long hint",
        ),
        *("hints", "drip", "silent in the status", "silent"),
    ],
)
async def test_a_bad_response_fails_in_one_sentence_without_quoting_it(
    make_sender: MakeSender, script: Script, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "in time" in message:  # short only for what never ends
        monkeypatch.setattr(delivery, "ATTEMPT_TIMEOUT_S", 0.5)
    async with Receiver(script) as receiver, asyncio.timeout(60):
        with pytest.raises(DeliveryFailed, match=message) as caught:
            await make_sender().deliver(receiver.url("/hook?token=hunter2"), "7", BODY)
        await receiver.until_open(0)

    assert f"127.0.0.1:{receiver.port} " in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_a_closed_port_fails_with_the_systems_reason(
    make_sender: MakeSender,
) -> None:
    async with Receiver() as receiver:
        pass

    with pytest.raises(DeliveryFailed) as caught:
        await make_sender().deliver(receiver.url("/p?q=hunter2"), "7", BODY)

    assert str(caught.value) == f"could not connect to 127.0.0.1:{receiver.port}: Connection refused"


# --- Addresses ------------------------------------------------------------------------------

#: Hosts whose one form is another.
SHOWN = {"[::ffff:127.0.0.1]": "[::ffff:7f00:1]", "[::127.0.0.1]": "[::7f00:1]"}


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "127.1",
        "2130706433",
        "0177.0.0.1",
        "0x7f.0.0.1",
        "0x7f000001",
        "127.0.0.1.",
        "0.0.0.0",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1%25lo]",
        "%31%32%37.0.0.1",
        "10.0.0.1",
        "169.254.169.254",
    ],
)
async def test_a_refused_host_is_named_and_never_connected_to(make_sender: MakeSender, host: str) -> None:
    async with Receiver() as receiver:
        with pytest.raises(WebhookRefused, match="BEEQ_WEBHOOK_ALLOW_HOSTS") as caught:
            await make_sender(allow="").deliver(receiver.url("/x?token=hunter2", host), "7", BODY)

    assert receiver.connections == 0
    if host != "0177.0.0.1":  # which the URL parser takes for a mistake
        shown = SHOWN.get(host, host.lower().removesuffix("."))
        assert f"{shown}:{receiver.port} " in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://user:hunter2@127.0.0.1:{port}/", "BEEQ_WEBHOOK_ALLOW_HOSTS"),
        ("http://hunter2@127.0.0.1:{port}/", "user name or password"),
        ("http://example.com\\@127.0.0.1:{port}/", "user name or password"),
        ("ftp://127.0.0.1:{port}/hunter2", "http://"),
        ("file:///etc/passwd?hunter2", "http://"),
        ("gopher://127.0.0.1:{port}/_hunter2", "http://"),
        ("//127.0.0.1:{port}/hunter2", "http://"),
        ("127.0.0.1:{port}", "URL"),
        ("", "http://"),
        ("http:///hunter2", "no usable host"),
        ("http://:{port}/hunter2", "no usable host"),
        ("http://127.0.0.1:0/hunter2", "no usable host"),
        ("http://127.0.0.1:65536/hunter2", "no usable host"),
        ("http://127.0.0.1:hunter2/", "cannot be read"),
        ("http://127.0.0.1:{port}/\r\nhunter2: 1", "cannot be read"),
        ("http://127.0.0.1:{port}/\ud800hunter2", "cannot be read"),
        ("http://[::1/hunter2", "cannot be read"),
        ("http://xn--/hunter2", "cannot be read"),
    ],
)
async def test_a_forbidden_url_is_refused_without_quoting_it(
    make_sender: MakeSender, url: str, message: str
) -> None:
    async with Receiver() as receiver:
        with pytest.raises(WebhookRefused, match=message) as caught:
            await make_sender().deliver(url.replace("{port}", str(receiver.port)), "7", BODY)

    assert receiver.connections == 0
    assert "hunter2" not in str(caught.value)


async def test_a_name_with_one_private_address_is_never_connected_to(
    make_sender: MakeSender,
) -> None:
    resolve = loopback(mixed_example=["93.184.215.14", "127.0.0.1"])
    async with Receiver() as receiver:
        with pytest.raises(DeliveryFailed, match=r"mixed\.example"):
            await make_sender("", resolve=resolve).deliver(receiver.url(host="mixed.example"), "7", BODY)

    assert receiver.connections == 0


async def test_a_name_turned_private_between_attempts_is_not_called(
    make_sender: MakeSender,
) -> None:
    answers = [["127.0.0.9"], ["127.0.0.1"]]

    async def resolve(_host: str, _port: int) -> list[str]:
        return answers.pop(0)

    async with Receiver() as receiver:
        sender = make_sender("turning.example:1", resolve=resolve)
        with pytest.raises(DeliveryFailed, match="Connection refused"):
            await sender.deliver("http://turning.example:1/", "7", BODY)
        with pytest.raises(DeliveryFailed, match="does not resolve to an address that may be called"):
            await sender.deliver(receiver.url(host="turning.example"), "7", BODY)

    assert receiver.connections == 0


async def test_the_host_header_is_the_urls_and_the_next_address_tried(
    make_sender: MakeSender,
) -> None:
    resolve = loopback(hooks_example=["127.0.0.9", "127.0.0.1"])
    async with Receiver() as receiver:
        sender = make_sender("hooks.example", resolve=resolve)
        assert (await sender.deliver(receiver.url(host="Hooks.Example"), "7", BODY)).status == 200

    assert receiver.requests[0].headers["host"] == f"hooks.example:{receiver.port}"


async def test_the_systems_own_resolver_finds_an_allowed_localhost(
    make_sender: MakeSender,
) -> None:
    async with Receiver() as receiver:
        sender = make_sender(f"localhost:{receiver.port}")
        assert (await sender.deliver(receiver.url(host="localhost"), "7", BODY)).status == 200


# --- The environment ------------------------------------------------------------------------


async def test_proxies_and_netrc_are_ignored(
    make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with Receiver(reply(418)) as proxy, Receiver() as receiver:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{proxy.port}")
        answer = await make_sender().deliver(receiver.url(), "7", BODY)

    assert answer.status == 200
    assert proxy.connections == 0
    assert "authorization" not in receiver.requests[0].headers


# --- TLS ------------------------------------------------------------------------------------


async def test_a_certificate_that_nobody_signed_is_refused(make_sender: MakeSender, tmp_path: Path) -> None:
    async with Receiver(tls=tmp_path) as receiver:
        sender = make_sender("hooks.example", resolve=loopback())
        with pytest.raises(DeliveryFailed, match=r"hooks\.example:\d+: TLS failed .*certificate"):
            await sender.deliver(receiver.url(host="hooks.example"), "7", BODY)

    assert receiver.requests == []


async def test_tls_asks_and_checks_for_the_urls_host(make_sender: MakeSender, tmp_path: Path) -> None:
    trusting = ssl.create_default_context(cadata=CERTIFICATE)
    async with Receiver(tls=tmp_path) as receiver:
        sender = make_sender("hooks.example,other.example", resolve=loopback(), ssl_context=trusting)
        answer = await sender.deliver(receiver.url(host="hooks.example"), "7", BODY)
        with pytest.raises(DeliveryFailed, match=r"other\.example:\d+: TLS failed .*[Hh]ostname"):
            await sender.deliver(receiver.url(host="other.example"), "7", BODY)

    assert answer.status == 200
    assert receiver.server_names == ["hooks.example", "other.example"]
    assert len(receiver.requests) == 1


async def test_tls_with_a_server_that_speaks_none_is_a_failure(make_sender: MakeSender) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(DeliveryFailed, match=r"127\.0\.0\.1:\d+: TLS failed"):
            await make_sender().deliver(f"https://127.0.0.1:{port}/", "7", BODY)


# --- Connections ----------------------------------------------------------------------------


async def test_deliveries_to_one_origin_alone_share_a_connection(
    make_sender: MakeSender,
) -> None:
    async with Receiver() as receiver:
        sender = make_sender("a.example,b.example", resolve=loopback())
        for host in ("a.example", "a.example", "b.example", "a.example"):
            await sender.deliver(receiver.url(host=host), "7", BODY)
        assert receiver.connections == 2

        await sender.aclose()
        await receiver.until_open(0)
        await sender.deliver(receiver.url(host="a.example"), "7", BODY)
        assert receiver.connections == 3


async def test_a_connection_closed_by_the_receiver_is_not_used_again(
    make_sender: MakeSender,
) -> None:
    closing = send(OK, b"content-length: 0\r\n\r\n")
    async with Receiver(closing) as receiver:
        sender = make_sender()
        for _ in range(3):
            assert (await sender.deliver(receiver.url(), "7", BODY)).status == 200
            await receiver.until_open(0)

    assert receiver.connections == 3


async def test_sixty_deliveries_go_out_at_once(make_sender: MakeSender) -> None:
    everyone = asyncio.Barrier(60)

    async def together(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await everyone.wait()
        writer.write(OK + b"content-length: 0\r\n\r\n")

    async with Receiver(together) as receiver, asyncio.timeout(20):
        sender = make_sender()
        answers = await asyncio.gather(
            *(sender.deliver(receiver.url(), str(number), BODY) for number in range(60))
        )
        await sender.aclose()
        await receiver.until_open(0)

    assert {answer.status for answer in answers} == {200}
    assert {request.headers["webhook-id"] for request in receiver.requests} == set(map(str, range(60)))


async def test_an_idle_connection_closes_by_itself(
    make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "KEEPALIVE_S", 0.05)
    async with Receiver() as receiver:
        await make_sender().deliver(receiver.url(), "7", BODY)
        await receiver.until_open(0)


async def test_few_connections_are_kept(make_sender: MakeSender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_IDLE", 2)
    monkeypatch.setattr(connections, "KEEPALIVE_S", 60)
    async with Receiver() as receiver:
        sender = make_sender("a.example,b.example,c.example", resolve=loopback())
        for host in ("a.example", "b.example", "c.example"):
            await sender.deliver(receiver.url(host=host), "7", BODY)
        await receiver.until_open(2)
        await sender.deliver(receiver.url(host="c.example"), "7", BODY)

    assert receiver.connections == 3


@pytest.mark.parametrize("has_tls", [False, True], ids=["plain", "tls"])
async def test_wherever_a_delivery_is_cancelled_no_connection_is_left(
    make_sender: MakeSender, tmp_path: Path, has_tls: bool
) -> None:
    trusting = ssl.create_default_context(cadata=CERTIFICATE)
    delivered = 0
    async with Receiver(tls=tmp_path if has_tls else None) as receiver:
        sender = make_sender("hooks.example", resolve=loopback(), ssl_context=trusting)
        for turns in range(80):
            attempt = asyncio.create_task(sender.deliver(receiver.url(host="hooks.example"), "7", BODY))
            for _ in range(turns):
                await asyncio.sleep(0)  # a turn of the loop: the cancellation comes at the next step
            attempt.cancel()
            await asyncio.wait({attempt}, timeout=5)
            delivered += not attempt.cancelled()
            assert sender._connections is None or not sender._connections.lent_count
        await sender.aclose()
        await receiver.until_open(0)

    assert 0 < delivered < 80


async def test_a_cancelled_delivery_closes_its_connection(make_sender: MakeSender) -> None:
    async with Receiver(send(hang_up=False)) as receiver:
        attempt = asyncio.create_task(make_sender().deliver(receiver.url(), "7", BODY))
        await receiver.until_requests(1)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await receiver.until_open(0)


async def test_a_delivery_cancelled_in_the_tls_handshake_disconnects(
    make_sender: MakeSender,
) -> None:
    greeted, hung_up = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        greeted.set()
        await reader.read()
        hung_up.set()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with server, asyncio.timeout(5):
        port = server.sockets[0].getsockname()[1]
        attempt = asyncio.create_task(make_sender().deliver(f"https://127.0.0.1:{port}/", "7", BODY))
        await greeted.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await hung_up.wait()


async def test_a_big_body_that_is_answered_early_gets_its_answer(make_sender: MakeSender) -> None:
    async def too_large(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async with Receiver(too_large) as receiver:
        assert (await make_sender().deliver(receiver.url(), "7", b"x" * 3_000_000)).status == 413


async def test_nothing_that_a_sender_shows_holds_the_secret(make_sender: MakeSender) -> None:
    assert SECRET.removeprefix("whsec_") not in repr(vars(make_sender(secret=SECRET)))
