"""The guard against a resolver that lies and a network that only takes notes."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpcore
import pytest

from beeq.http_client import guard as guard_module
from beeq.http_client.addresses import AllowedHosts
from beeq.http_client.guard import GuardedBackend, Resolver, ResolverBusy, WebhookRefused

PUBLIC = "93.184.215.14"
PUBLIC_V6 = "2606:4700:4700::1111"


class Names:
    """A resolver that gives its answers in turn, the last one for ever."""

    def __init__(self, *answers: list[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        assert port
        self.asked.append(host)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class Network(httpcore.AsyncNetworkBackend):
    """Notes where a connection was wanted; addresses in ``dead`` refuse, in ``silent`` never answer."""

    def __init__(self, *, dead: set[str] | None = None, silent: set[str] | None = None) -> None:
        self.dead = dead or set()
        self.silent = silent or set()
        self.tried: list[tuple[str, int]] = []
        self.shares_s: list[float] = []

    async def connect_tcp(self, host: str, port: int, timeout: float | None = None, *_: Any) -> Any:  # noqa: ASYNC109 - httpcore's signature
        self.tried.append((host, port))
        assert timeout is not None
        self.shares_s.append(timeout)
        if host in self.silent:
            raise httpcore.ConnectTimeout
        if host in self.dead:
            raise httpcore.ConnectError("no") from ConnectionRefusedError(111, "no")
        return httpcore.AsyncMockStream([])


def guard(names: Names, network: Network, allowed: str = "") -> GuardedBackend:
    backend = GuardedBackend(AllowedHosts.parse(allowed), names)
    backend._network = network  # type: ignore[assignment]  # the real one is a network
    return backend


async def test_a_public_name_is_connected_to_by_its_address() -> None:
    names, network = Names([PUBLIC]), Network()

    await guard(names, network).connect_tcp("hooks.example", 443, timeout=5)

    assert names.asked == ["hooks.example"]
    assert network.tried == [(PUBLIC, 443)]


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["::1"],
        ["fe80::1%2"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::a00:1"],
        [PUBLIC, "127.0.0.1"],
        ["127.0.0.1", PUBLIC],
        [PUBLIC_V6, "fd00:ec2::254"],
        [PUBLIC] * 200 + ["192.168.1.1"],
    ],
)
async def test_one_address_that_is_not_public_refuses_the_name(answer: list[str]) -> None:
    network = Network()

    with pytest.raises(httpcore.ConnectError, match="address that may be called .BEEQ_WEBHOOK_ALLOW_HOSTS"):
        await guard(Names(answer), network).connect_tcp("hooks.example", 80, timeout=5)

    assert network.tried == []


@pytest.mark.parametrize(
    "host", ["localhost", "a.localhost.", "2130706433", "127.1", "0x7f.1", "fe80::1%25lo"]
)
async def test_local_names_and_odd_spellings_are_refused_unasked(host: str) -> None:
    names, network = Names([PUBLIC]), Network()

    with pytest.raises(WebhookRefused, match="BEEQ_WEBHOOK_ALLOW_HOSTS"):
        await guard(names, network).connect_tcp(host, 80, timeout=5)

    assert (names.asked, network.tried) == ([], [])


async def test_a_name_that_changes_its_address_after_the_check_fails() -> None:
    names, network = Names([PUBLIC], ["127.0.0.1"]), Network()
    backend = guard(names, network)

    await backend.connect_tcp("rebind.example", 80, timeout=5)
    with pytest.raises(httpcore.ConnectError):
        await backend.connect_tcp("rebind.example", 80, timeout=5)

    assert names.asked == ["rebind.example", "rebind.example"]  # once for each connection
    assert network.tried == [(PUBLIC, 80)]


async def test_an_allowed_name_may_have_any_address() -> None:
    network = Network()

    await guard(Names(["10.1.2.3"]), network, "inside.example:81").connect_tcp("inside.example", 81)
    with pytest.raises(httpcore.ConnectError):
        await guard(Names(["10.1.2.3"]), network, "inside.example:81").connect_tcp("inside.example", 82)
    with pytest.raises(httpcore.ConnectError):
        await guard(Names(["10.1.2.3"]), network, "10.1.2.3").connect_tcp("inside.example", 81)

    assert network.tried == [("10.1.2.3", 81)]


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    network = Network(dead={PUBLIC}, silent={"1.1.1.1"})

    await guard(Names([PUBLIC, "1.1.1.1", "8.8.8.8", "9.9.9.9"]), network).connect_tcp(
        "a.example", 80, timeout=8
    )

    assert [address for address, _ in network.tried] == [PUBLIC, "1.1.1.1", "8.8.8.8"]
    # An equal share of the time for each, and what is left over goes to the later ones.
    assert network.shares_s == pytest.approx([2, 8 / 3, 4], abs=0.5)


async def test_the_families_take_turns_and_few_addresses_are_tried() -> None:
    many_v6 = [f"2606:4700::{number:x}" for number in range(1, 100)]
    network = Network(dead={*many_v6, PUBLIC})

    with pytest.raises(httpcore.ConnectError):
        await guard(Names([*many_v6, PUBLIC, PUBLIC]), network).connect_tcp("a.example", 80, timeout=5)

    assert [address for address, _ in network.tried] == [many_v6[0], PUBLIC, many_v6[1], many_v6[2]]


@pytest.mark.parametrize(
    ("names", "network", "message"),
    [
        (Names(socket.gaierror(-2, "Name or service not known")), Network(), "does not resolve"),
        (Names([]), Network(), "does not resolve"),
        (Names([PUBLIC]), Network(dead={PUBLIC}), "Connection refused"),
    ],
)
async def test_a_missing_host_is_an_ordinary_failure_with_its_reason(
    names: Names, network: Network, message: str
) -> None:
    with pytest.raises(httpcore.ConnectError, match=message):
        await guard(names, network).connect_tcp("a.example", 80, timeout=5)


async def test_the_last_address_that_stays_silent_is_a_timeout() -> None:
    with pytest.raises(httpcore.ConnectTimeout):
        await guard(Names([PUBLIC]), Network(silent={PUBLIC})).connect_tcp("a.example", 80, timeout=5)


async def test_a_resolver_that_stays_silent_is_a_timeout() -> None:
    async def silent(_host: str, _port: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    backend = GuardedBackend(AllowedHosts.parse(""), silent)

    with pytest.raises(httpcore.ConnectTimeout, match="did not resolve in time"):
        await backend.connect_tcp("a.example", 80, timeout=0.01)


@pytest.fixture
async def resolver() -> AsyncIterator[Resolver]:
    resolver = Resolver()
    yield resolver
    resolver.close()


async def test_the_systems_resolver_is_asked_in_a_thread_of_its_own(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append((host, threading.current_thread().name))
        v4 = (socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))
        v6 = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (PUBLIC_V6, port, 0, 0))
        scoped = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1", port, 0, 3))
        return [v4, v6, scoped]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    assert await resolver("a.example", 80) == [PUBLIC, PUBLIC_V6, "fe80::1%3"]
    assert asked[0][0] == "a.example"
    assert asked[0][1].startswith("beeq-resolve")


async def test_a_name_without_a_thread_to_look_it_up_is_told_so(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        assert go_on.wait(60)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(guard_module, "_THREAD_WAIT_S", 0.1)
    slow = [asyncio.create_task(resolver(f"slow{n}.example", 80)) for n in range(16)]
    try:
        await asyncio.sleep(0)  # each has taken its thread
        for task in slow[:8]:
            task.cancel()  # nobody waits any more, but the threads are held
        backend = GuardedBackend(AllowedHosts.parse(""), resolver)
        with pytest.raises(ResolverBusy, match="too many slow host names"):
            await backend.connect_tcp("good.example", 80, timeout=10)
        assert "good.example" not in asked
    finally:
        go_on.set()
    assert await asyncio.gather(*slow[8:]) == [[PUBLIC]] * 8
    monkeypatch.setattr(guard_module, "_THREAD_WAIT_S", 60)
    assert await resolver("good.example", 80) == [PUBLIC]


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", "x" * 300])
async def test_a_name_that_no_resolver_takes_does_not_resolve(resolver: Resolver, host: str) -> None:
    with pytest.raises(OSError, match="not a host name"):
        await resolver(host, 80)
