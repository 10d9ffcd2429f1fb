"""The network for strangers' URLs: resolves a host once, checks every address, connects to a checked one.

The HTTP client sees only host names, so the Host header, SNI and the certificate check are those of the
URL; and it cannot bypass the check, because this is its only network. The address that was checked is the
one connected to, so a name that resolves differently a moment later (DNS rebinding) gains nothing.
"""

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from typing import Any

import httpcore

from beeq.errors import BeeqError
from beeq.webhooks.addresses import AllowedHosts, is_public, may_resolve
from beeq.webhooks.connections import OwnedNetwork, SocketOption, WatchedStream, connect_error_text

#: Resolves a host name to its addresses, in the order to try them; raises OSError.
Resolve = Callable[[str, int], Awaitable[list[str]]]

#: For resolving and connecting together, if the caller gives no timeout.
_CONNECT_TIMEOUT_S = 10.0
#: A name may have any number of addresses; all are checked, this many are tried.
_MAX_TRIES = 4
#: Slow names block these threads only, not the loop's own, in which handlers run.
_RESOLVER_THREADS = 16


class WebhookRefused(BeeqError):
    """The URL must not be called, now or later. The message holds the host at most."""


class Resolver:
    """The system's resolver, in threads of its own. Call it to resolve; ``close`` it at the end."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="beeq-resolve")

    async def __call__(self, host: str, port: int) -> list[str]:
        """Return the addresses of ``host``; a scoped one keeps its scope (``fe80::1%2``). Raises OSError."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, _addresses, host, port)

    def close(self) -> None:
        """Stop the threads; a look-up under way ends by the resolver's own time limit."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except ValueError:  # an empty label, or one of more than 63 characters
        raise OSError(errno.EINVAL, "not a host name") from None
    return [_with_scope(sockaddr) for *_, sockaddr in found]


def _with_scope(sockaddr: tuple[Any, ...]) -> str:
    """Return the address in a result of ``getaddrinfo``, whose fourth item is IPv6's scope."""
    address, _port, *rest = sockaddr
    scope = rest[1] if rest else 0
    return f"{address}%{scope}" if scope and "%" not in address else str(address)


class GuardedBackend(OwnedNetwork):
    """Opens one connection, to a public address or an allowed host only."""

    def __init__(self, allowed: AllowedHosts, resolve: Resolve) -> None:
        super().__init__()
        self._allowed = allowed
        self._resolve = resolve

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to ``host`` at the first of its addresses that accepts, within ``timeout`` seconds in all.

        Raises WebhookRefused if the host, or any of its addresses, must not be called.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + (_CONNECT_TIMEOUT_S if timeout is None else timeout)
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await self._checked(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout("the name did not resolve in time") from None
        while True:
            # Each address gets its share of the time, so one that drops packets does not use up all of it.
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
                    raise httpcore.ConnectError(connect_error_text(error)) from error
            else:
                return WatchedStream(self._stream, self)

    async def _checked(self, host: str, port: int) -> list[str]:
        """Return the addresses to try, at least one, after checking all of them."""
        allowed = self._allowed.allows(host, port)
        if not allowed and not may_resolve(host):
            raise _refusal(host, port, self._allowed)
        try:
            addresses = await self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"the name does not resolve ({error.strerror or error})") from error
        if not addresses:
            raise httpcore.ConnectError("the name has no address")
        if not allowed and not all(is_public(address) for address in addresses):
            # One address that is not public refuses the name, for its owner chooses the order.
            raise _refusal(host, port, self._allowed)
        return _by_turns(addresses)[:_MAX_TRIES]


def _refusal(host: str, port: int, allowed: AllowedHosts) -> WebhookRefused:
    shown = f"[{host}]" if ":" in host else host
    return WebhookRefused(
        f"host {shown}:{port} is not on the public internet, and {allowed.setting} does not allow it"
    )


def _by_turns(addresses: list[str]) -> list[str]:
    """Return the addresses, IPv4 and IPv6 in turn, beginning with the resolver's first."""
    distinct = list(dict.fromkeys(addresses))
    is_v6 = ":" in distinct[0]
    first = [address for address in distinct if (":" in address) is is_v6]
    second = [address for address in distinct if (":" in address) is not is_v6]
    return [address for pair in zip_longest(first, second) for address in pair if address is not None]
