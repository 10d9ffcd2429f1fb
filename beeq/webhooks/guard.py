"""The way out: resolves a host once, checks every address, and connects to a checked one.

The HTTP client on top sees only host names, so the Host header, SNI and the certificate check are
those of the URL; and it cannot connect around this, since it has no other way to the network.
Because the address that was checked is the one connected to, a name that resolves differently a
moment later (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any

import httpcore

from beeq.errors import BeeqError
from beeq.webhooks.addresses import ALLOW_HOSTS_SETTING, AllowedHosts, is_public, may_resolve

#: Resolves a host name to its addresses, in the order to try them; raises OSError.
Resolve = Callable[[str, int], Awaitable[list[str]]]

#: For resolving and connecting together, where the caller has no opinion.
_CONNECT_TIMEOUT_S = 10.0
#: A name may have any number of addresses; all are checked, this many are tried.
_MAX_TRIES = 4
#: Slow names fill these threads and no others: the loop's own pool serves handlers.
_RESOLVER_THREADS = 16
_SocketOption = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class WebhookRefused(BeeqError):
    """The URL must not be called, now or later. The message holds the host at most."""


class Resolver:
    """The system's resolver, in threads of its own. Call it to resolve, ``close`` it at the end."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="beeq-resolve")

    async def __call__(self, host: str, port: int) -> list[str]:
        """Return the addresses of ``host``; a scoped one keeps its scope (``fe80::1%2``).

        Raises:
            OSError: the name has no address, or no resolver answered.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _addresses, host, port)

    def close(self) -> None:
        """Let the threads end; a look-up under way ends by the resolver's own time limit."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except ValueError:  # an empty label, one of more than 63 characters
        raise OSError(errno.EINVAL, "not a host name") from None
    return [_with_scope(sockaddr) for *_, sockaddr in found]


def _with_scope(sockaddr: tuple[Any, ...]) -> str:
    """Return the address of a ``getaddrinfo`` answer; IPv6 answers have the scope in fourth place."""
    address, _port, *rest = sockaddr
    scope = rest[1] if rest else 0
    return f"{address}%{scope}" if scope and "%" not in address else str(address)


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens one connection, to a public address or an allowed host only, and owns it."""

    def __init__(self, allowed: AllowedHosts, resolve: Resolve) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()
        self._stream: httpcore.AsyncNetworkStream | None = None

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[_SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to ``host`` at the first of its addresses that answers.

        Raises:
            WebhookRefused: the host, or any of its addresses, must not be called.
            httpcore.ConnectError: it cannot be resolved or reached; the message says why.
            httpcore.ConnectTimeout: ``timeout`` seconds were not enough for all of it.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + (_CONNECT_TIMEOUT_S if timeout is None else timeout)
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await self._checked(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout("the name did not resolve in time") from None
        while True:
            # An address that swallows packets leaves their share of the time to the others.
            share_s = (deadline - clock()) / len(addresses)
            try:
                self._stream = await self._network.connect_tcp(
                    addresses.pop(0), port, max(share_s, 0), local_address, socket_options
                )
            except httpcore.ConnectTimeout:
                if not addresses:
                    raise
            except httpcore.ConnectError as error:
                if not addresses:
                    raise httpcore.ConnectError(_reason(error)) from error
            else:
                return self._stream

    async def aclose(self) -> None:
        """Close the connection, whatever is going on on it. Takes two turns of the loop at most."""
        if self._stream is not None:
            await self._stream.aclose()

    async def _checked(self, host: str, port: int) -> list[str]:
        """Return the addresses to try: at least one, all of them checked."""
        allowed = self._allowed.allows(host, port)
        if not allowed and not may_resolve(host):
            raise _refusal(host, port)
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"the name does not resolve ({error.strerror or error})") from error
        if not addresses:
            raise httpcore.ConnectError("the name has no address")
        if not allowed and not all(is_public(address) for address in addresses):
            # One bad address refuses the name: its owner decides which one comes first.
            raise _refusal(host, port)
        return _by_turns(addresses)[:_MAX_TRIES]


def _refusal(host: str, port: int) -> WebhookRefused:
    shown = f"[{host}]" if ":" in host else host
    return WebhookRefused(
        f"webhook host {shown}:{port} is not on the public internet,"
        f" and {ALLOW_HOSTS_SETTING} does not allow it"
    )


def _by_turns(addresses: list[str]) -> list[str]:
    """Return the addresses with both families taking turns, the resolver's favourite first."""
    distinct = list(dict.fromkeys(addresses))
    is_v6 = ":" in distinct[0]
    favourites = [address for address in distinct if (":" in address) is is_v6]
    others = [address for address in distinct if (":" in address) is not is_v6]
    pairs = zip_longest(favourites, others)
    return [address for pair in pairs for address in pair if address is not None]


def _reason(error: BaseException) -> str:
    """Return the system's word for why a connection failed ("Connection refused")."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno is not None:
            return os.strerror(cause.errno)
        cause = cause.__cause__
    return str(error)
