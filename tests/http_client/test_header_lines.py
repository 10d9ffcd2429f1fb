"""Header lines and chunk sizes of nothing but blanks are read at once, and all others as h11 reads them."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from h11 import _abnf, _readers
from hypothesis import given
from hypothesis import strategies as st

from beeq.ai.client import AIClient
from beeq.ai.errors import AIFailed
from beeq.http_client import header_lines
from beeq.http_client.addresses import AllowedHosts
from beeq.media.errors import MediaFailed
from beeq.media.remote import RemoteMedia
from beeq.webhooks.delivery import WebhookSender
from tests.web.test_connections import served
from tests.webhooks.receiver import Receiver, send

#: Before, a line of so many blanks took 19 s of one call, in which no signal is handled: hence the method.
BLANKS = b" " * 90_000
pytestmark = pytest.mark.timeout(15, method="thread")

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n"
LINES = {
    "a zero byte": OK + b"x:" + BLANKS + b"\0\r\n\r\n",
    "another kind of blank": OK + b"x:" + BLANKS + b"\x0b\r\n\r\n",
    "folded lines": OK + b"x:" + b" \r\n" * 30_000 + b" \0\r\n\r\n",
    "a trailer": CHUNKED + b"0\r\nx:" + BLANKS + b"\0\r\n\r\n",
    "a chunk's extension": CHUNKED + b"1;" + BLANKS + b"\nx\r\n",
    "behind a long head": OK + b"a: b\r\n" * 6_000 + b"x:" + BLANKS + b"\0\r\n\r\n",
}


@pytest.fixture(params=LINES.values(), ids=list(LINES))
async def hostile(request: pytest.FixtureRequest) -> AsyncIterator[Receiver]:
    """Answers with one of the lines."""
    async with Receiver(send(request.param)) as receiver:
        yield receiver


async def test_a_receiver_with_a_line_of_blanks_holds_nobody_up(hostile: Receiver) -> None:
    sender = WebhookSender(AllowedHosts.parse("127.0.0.1"))
    assert (await sender.deliver(hostile.url(), "7", b"{}")).status == 200
    await sender.aclose()


async def test_a_provider_with_a_line_of_blanks_holds_nobody_up(hostile: Receiver) -> None:
    client = AIClient(hostile.url(""), "sk-12345678")
    with pytest.raises(AIFailed):
        await client.post("script", client.endpoint("chat"), {}, idempotency_key="k", read=bool)
    await client.aclose()


async def test_a_media_service_with_a_line_of_blanks_holds_nobody_up(hostile: Receiver) -> None:
    media = RemoteMedia(hostile.url(""))
    with pytest.raises(MediaFailed):
        await media.stitch_audio(["a"], "b", lambda _: None)


async def nothing(_scope: Any, _receive: Any, _send: Any) -> None:
    raise AssertionError("the request is none")


async def test_a_request_with_a_line_of_blanks_is_refused_at_once() -> None:
    async with served(nothing) as server:
        reader, writer = await server.connect()
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nx:" + BLANKS + b"\0\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()


def test_who_opens_connections_has_h11_read_in_one_pass() -> None:
    assert _readers.header_field_re is header_lines.HEADER_FIELD
    assert _readers.chunk_header_re is header_lines.CHUNK_HEADER


def test_this_version_of_h11_reads_by_the_known_expressions() -> None:
    """If this fails, h11 has changed: look whether it still needs this, and adapt or remove it."""
    assert _abnf.header_field == header_lines.KNOWN_HEADER_FIELD
    assert _abnf.chunk_header == header_lines.KNOWN_CHUNK_HEADER


def test_another_h11_is_left_alone_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = re.compile(rb"(?P<field_name>x):(?P<field_value>y)")
    monkeypatch.setattr(_readers, "header_field_re", theirs)
    monkeypatch.setattr(_abnf, "header_field", theirs.pattern.decode())
    with caplog.at_level(logging.WARNING):
        header_lines.read_lines_in_one_pass()
    assert _readers.header_field_re is theirs
    assert "not known here" in caplog.text


def of(alphabet: bytes) -> st.SearchStrategy[bytes]:
    """Return short texts in which the bytes that matter are frequent."""
    return st.lists(st.sampled_from([alphabet[i : i + 1] for i in range(len(alphabet))])).map(b"".join)


def groups(expression: re.Pattern[bytes], line: bytes) -> tuple[Any, ...] | None:
    found = expression.fullmatch(line)
    return None if found is None else (found.groupdict(), found.groups())


@given(name=of(b"aZ-_:\x00 "), value=of(b"a:\xe9 \t\x01\x00\x0b\r\n"))
def test_header_lines_mean_what_they_mean_to_h11(name: bytes, value: bytes) -> None:
    line = name + b":" + value
    theirs = re.compile(header_lines.KNOWN_HEADER_FIELD.encode())
    assert groups(header_lines.HEADER_FIELD, line) == groups(theirs, line)


@given(size=of(b"0aF9g"), rest=of(b"; =a\t\r\n\x00\xe9"))
def test_chunk_sizes_mean_what_they_mean_to_h11(size: bytes, rest: bytes) -> None:
    line = size + rest + b"\r\n"
    theirs = re.compile(header_lines.KNOWN_CHUNK_HEADER.encode())
    assert groups(header_lines.CHUNK_HEADER, line) == groups(theirs, line)


@given(st.binary(max_size=12))
def test_any_line_means_what_it_means_to_h11(content: bytes) -> None:
    for known, ours, line in (
        (header_lines.KNOWN_HEADER_FIELD, header_lines.HEADER_FIELD, b"a:" + content),
        (header_lines.KNOWN_CHUNK_HEADER, header_lines.CHUNK_HEADER, b"1" + content + b"\r\n"),
    ):
        assert groups(ours, line) == groups(re.compile(known.encode()), line)
