"""A minimal HTTP server for scrapers and probes: GET and HEAD, one request a connection, each wait bounded.

Clients are not trusted: the head of a request is limited in size and time, connections are limited in number,
and a browser's request for another site is refused. If only this machine's programs reach the port, the
``Host`` must be this machine, too, against DNS rebinding.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from socket import AF_INET, AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET
from socket import socket as new_socket

from beeq.logs.records import log_event

#: The longest head of a request, in bytes, and the longest time for reading it, answering, and sending.
_MAX_HEAD = 8192
_HEAD_S = 5.0
_ANSWER_S = 6.0
_SEND_S = 5.0
_MAX_CONNECTIONS = 32
_BACKLOG = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """A response."""

    status: int
    content: bytes
    content_type: str = "text/plain; charset=utf-8"


#: Answers the GETs of one path; gets the client's Accept header.
Page = Callable[[str], Awaitable[Answer]]


def listen(address: str, port: int) -> new_socket:
    """Return a listening socket.

    Raises:
        ValueError: not an IP address. OSError: it cannot be listened on.
    """
    ip = ipaddress.ip_address("127.0.0.1" if address == "localhost" else address.strip("[]"))
    family = AF_INET if ip.version == 4 else AF_INET6  # noqa: PLR2004 - IPv4
    listener = new_socket(family, SOCK_STREAM)
    try:
        listener.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
        if family == AF_INET6:
            listener.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0 if ip.is_unspecified else 1)
        listener.bind((str(ip), port))
        listener.listen(_BACKLOG)
        listener.settimeout(0)
    except OSError:
        listener.close()
        raise
    return listener


class _OpenRequests:
    """The connections, in the order in which they came; of too many, the oldest one ends."""

    def __init__(self) -> None:
        self._writers: dict[asyncio.StreamWriter, None] = {}

    def begin(self, writer: asyncio.StreamWriter) -> None:
        """Take a connection."""
        if len(self._writers) >= _MAX_CONNECTIONS:
            self.end(next(iter(self._writers)))
        self._writers[writer] = None

    def end(self, writer: asyncio.StreamWriter) -> None:
        """End a connection, at once."""
        self._writers.pop(writer, None)
        writer.transport.abort()


async def serve(listener: new_socket, pages: Mapping[str, Page]) -> asyncio.Server:
    """Answer GETs on this socket in the running loop: each page takes what the client accepts."""
    is_local = ipaddress.ip_address(listener.getsockname()[0]).is_loopback
    handle = partial(_handle, pages, _OpenRequests(), is_local)
    return await asyncio.start_server(handle, sock=listener, limit=_MAX_HEAD)


async def _handle(
    pages: Mapping[str, Page],
    open_requests: _OpenRequests,
    is_local: bool,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    open_requests.begin(writer)
    try:
        async with asyncio.timeout(_HEAD_S):
            head = await reader.readuntil(b"\r\n\r\n")
        answer = await _answer(pages, is_local, head)
        async with asyncio.timeout(_SEND_S):
            writer.write(_packed(answer, has_body=not head.startswith(b"HEAD ")))
            await writer.drain()
            writer.write_eof()
            await reader.read(1)  # until the client has closed: unread input would cut the answer off
    except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
        pass  # the client is too slow, or has gone
    finally:
        open_requests.end(writer)


async def _answer(pages: Mapping[str, Page], is_local: bool, head: bytes) -> Answer:
    """Return the answer to a request."""
    line, *lines = head.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004 - method, target, version
        return Answer(400, b"bad request\n")
    method, target, _ = words
    headers: dict[str, str] = {}
    for each in lines:
        name, _, value = each.partition(":")
        headers.setdefault(name.strip().lower(), value.strip())
    page = pages.get(target.partition("?")[0])
    if not _is_own(headers, is_local):
        return Answer(403, b"not answered for other sites, or under this name\n")
    if page is None:
        return Answer(404, b"not found; there are %b\n" % " ".join(pages).encode())
    if method not in ("GET", "HEAD"):
        return Answer(405, b"only GET and HEAD\n")
    try:
        async with asyncio.timeout(_ANSWER_S):
            return await page(headers.get("accept", ""))
    except Exception as error:  # noqa: BLE001 - the next request may have an answer
        log_event(logging.WARNING, f"{target[:100]!r} cannot be answered", error=error, has_trace=True)
        return Answer(500, b"internal error\n")


def _is_own(headers: Mapping[str, str], is_local: bool) -> bool:
    """Return whether the request does not come from another site in a browser."""
    site = headers.get("sec-fetch-site", "none")
    if "origin" in headers or site not in ("none", "same-origin"):
        return False
    if not is_local or "host" not in headers:
        return True
    host = headers["host"]
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name.lower() in ("localhost", ""):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _packed(answer: Answer, *, has_body: bool) -> bytes:
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        f"content-type: {answer.content_type}\r\ncontent-length: {len(answer.content)}\r\n"
        "cache-control: no-store\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    )
    return head.encode("latin-1") + (answer.content if has_body else b"")
