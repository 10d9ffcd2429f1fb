"""The network for untrusted URLs: resolves a host once, checks every address, connects to a checked one.

The HTTP client sees only host names, so the Host header, SNI and the certificate check use the URL's host;
and it cannot bypass the check, because this is its only network. The address that was checked is the
one connected to, so a name that resolves differently a moment later (DNS rebinding) gains nothing.

A reader of a job's error must not learn which internal names exist. So a name without an address and one
whose address must not be called give the same error, and both are retried, since a name may get its address
late. The log, which only the operator sees, says which of them it was.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from itertools import zip_longest
from typing import Any

import httpcore

from beeq.errors import BeeqError
from beeq.http_client.addresses import AllowedHosts, inner_address, is_address, is_public, may_resolve
from beeq.http_client.connections import OwnedNetwork, SocketOption, WatchedStream, connect_error_text
from beeq.http_client.local_failure import LocalFailure, local_failure
from beeq.http_client.network_limits import DENY_NETS_SETTING, PORTS_SETTING, NetworkLimits
from beeq.http_client.own_addresses import is_own

logger = logging.getLogger(__name__)

#: Resolves a host name to its addresses, in the order to try them; raises OSError.
Resolve = Callable[[str, int], Awaitable[list[str]]]

#: For resolving and connecting together, if the caller gives no timeout.
_CONNECT_TIMEOUT_S = 10.0
#: A name may have any number of addresses; all are checked, this many are tried.
_MAX_TRIES = 4
#: Slow names block these threads only, not the loop's own, in which handlers run.
_RESOLVER_THREADS = 16
#: How long a look-up waits for a free thread: less than the time to connect, so that some of that is left.
_THREAD_WAIT_S = 3.0


class WebhookRefused(BeeqError):
    """The URL must not be called, now or later. The message holds the host at most."""


class ResolverBusy(LocalFailure):
    """Other names hold all threads of the resolver: this says nothing about the name to be looked up."""

    def __init__(self) -> None:
        super().__init__("this worker looks up too many slow host names at the moment")


class Resolver:
    """The system's resolver, in threads of its own. Call it to resolve; ``close`` it at the end."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_RESOLVER_THREADS, thread_name_prefix="beeq-resolve")
        self._free = asyncio.Semaphore(_RESOLVER_THREADS)

    async def __call__(self, host: str, port: int) -> list[str]:
        """Return the addresses of ``host``; a scoped one keeps its scope (``fe80::1%2``).

        Raises OSError if it has none, ResolverBusy if no thread came free to look it up, and another
        LocalFailure if none can be started.
        """
        try:
            async with asyncio.timeout(_THREAD_WAIT_S):
                await self._free.acquire()
        except TimeoutError:
            raise ResolverBusy from None
        try:
            lookup = asyncio.get_running_loop().run_in_executor(self._threads, _addresses, host, port)
        except RuntimeError as error:  # the system starts no more threads, or the resolver is closed
            self._free.release()
            raise LocalFailure("this worker cannot start a thread to look up a name") from error
        lookup.add_done_callback(self._ended)
        await asyncio.wait({lookup})  # if this is cancelled, the thread finishes its look-up
        return lookup.result()

    def _ended(self, lookup: asyncio.Future[list[str]]) -> None:
        self._free.release()
        if not lookup.cancelled():
            lookup.exception()  # retrieved, so that asyncio does not log it

    def close(self) -> None:
        """Stop the threads; a look-up under way ends by the resolver's own time limit."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _addresses(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except ValueError:  # an empty label, or one of more than 63 characters
        raise OSError(errno.EINVAL, "not a host name") from None
    except socket.gaierror:
        # Without a free file a name may look as if it did not exist; then this raises the real reason.
        socket.socket().close()
        raise
    return [_with_scope(sockaddr) for *_, sockaddr in found]


def _with_scope(sockaddr: tuple[Any, ...]) -> str:
    """Return the address in a result of ``getaddrinfo``, whose fourth item is IPv6's scope."""
    address, _port, *rest = sockaddr
    scope = rest[1] if rest else 0
    return f"{address}%{scope}" if scope and "%" not in address else str(address)


class GuardedBackend(OwnedNetwork):
    """Opens one connection, to a public address that is not this machine's, or to an allowed host.

    ``limits`` are the configuration's on ports and networks.
    """

    def __init__(self, allowed: AllowedHosts, resolve: Resolve, limits: NetworkLimits | None = None) -> None:
        super().__init__()
        self._allowed = allowed
        self._resolve = resolve
        self._limits = limits or NetworkLimits()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to ``host`` at the first of its addresses that accepts, within ``timeout`` seconds in all.

        Raises WebhookRefused if the host or the port must not be called, independent of its addresses, and
        LocalFailure if this worker cannot make calls, or other names hold the resolver.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + (_CONNECT_TIMEOUT_S if timeout is None else timeout)
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await self._checked(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout("the name did not resolve in time") from None
        is_local = True  # as long as no address failed by itself
        while True:
            # Each address gets its share of the time, so one that drops packets does not use up all of it.
            share_s = (deadline - clock()) / len(addresses)
            try:
                self._stream = await self._network.connect_tcp(
                    addresses.pop(0), port, max(share_s, 0), local_address, socket_options
                )
            except httpcore.ConnectTimeout:
                is_local = False
                if not addresses:
                    raise
            except httpcore.ConnectError as error:
                failure = local_failure(error)
                is_local = is_local and failure is not None
                if not addresses:
                    if is_local and failure is not None:
                        raise failure from error
                    raise httpcore.ConnectError(connect_error_text(error)) from error
            else:
                return WatchedStream(self._stream, self)

    async def _checked(self, host: str, port: int) -> list[str]:
        """Return the addresses to try, at least one, after checking all of them."""
        is_allowed = self._allowed.allows(host, port)
        if not is_allowed and not self._limits.allows_port(port):
            raise WebhookRefused(f"port {port} of the URL is not among those of {PORTS_SETTING}")
        if not is_allowed and not may_resolve(host):
            raise self._refusal(host, port)
        try:
            addresses = await self._resolve(host, port)
            # One address that must not be called refuses the name, for its owner chooses the order.
            faults = (self._fault(address, is_allowed=is_allowed) for address in addresses)
            fault = next(filter(None, faults), None)
        except OSError as error:
            if (failure := local_failure(error)) is not None:
                raise failure from error
            addresses, fault = [], f"cannot be looked up ({error.strerror or error})"
        if not addresses and fault is None:
            fault = "has no address"
        if fault is not None:
            logger.info("%s:%d is not called: it %s", host, port, fault)
            if is_address(host):
                raise self._refusal(host, port, is_denied=self._limits.denies(host))
            raise httpcore.ConnectError(
                "its name does not resolve to an address that may be called"
                f" ({self._allowed.setting} names exceptions)"
            )
        return _by_turns(addresses)[:_MAX_TRIES]

    def _fault(self, address: str, *, is_allowed: bool) -> str | None:
        """Return why a resolved address must not be called; None if it may be."""
        if self._limits.denies(address):
            return f"leads to {address}, which {DENY_NETS_SETTING} denies"
        if is_allowed:
            return None
        if not is_public(address):
            return f"leads to {address}, which is not public"
        if is_own(str(inner_address(ip_address(address)))):
            return f"leads to {address}, which is this machine's own"
        return None

    def _refusal(self, host: str, port: int, *, is_denied: bool = False) -> WebhookRefused:
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if is_denied:
            return WebhookRefused(f"host {shown} is in a network that {DENY_NETS_SETTING} denies")
        return WebhookRefused(
            f"host {shown} is not on the public internet, and {self._allowed.setting} does not allow it"
        )


def _by_turns(addresses: list[str]) -> list[str]:
    """Return the addresses, IPv4 and IPv6 in turn, beginning with the resolver's first."""
    distinct = list(dict.fromkeys(addresses))
    is_v6 = ":" in distinct[0]
    first = [address for address in distinct if (":" in address) is is_v6]
    second = [address for address in distinct if (":" in address) is not is_v6]
    return [address for pair in zip_longest(first, second) for address in pair if address is not None]
