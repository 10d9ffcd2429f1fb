"""Listeners: order, once, off, and errors that stop nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from beeq.emitter import Emitter

pytestmark = pytest.mark.fast


class Bench:
    """An emitter, what its listeners heard, what went wrong, and the coroutines it gave away."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []
        self.errors: list[tuple[str, str]] = []
        self.awaitables: list[Awaitable[Any]] = []
        self.emitter = Emitter(
            on_awaitable=lambda _subscription, awaitable: self.awaitables.append(awaitable),
            on_error=lambda event, error: self.errors.append((event, str(error))),
        )

    def listener(self, name: str) -> Callable[..., None]:
        return lambda *arguments: self.heard.append((name, *arguments))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_what_is_heard_is_known_as_listeners_come_and_go(bench):
    heard, listener = bench.emitter.heard(), bench.listener("x")
    bench.emitter.on("x", listener)
    assert "x" in heard
    bench.emitter.off("x", listener)
    assert "x" not in heard


def test_listeners_are_called_in_order_with_what_was_emitted(bench):
    for name in ("first", "second"):
        bench.emitter.on("x", bench.listener(name))
    assert bench.emitter.emit("x", 1, "two") is True
    assert bench.heard == [("first", 1, "two"), ("second", 1, "two")]


def test_an_event_without_listeners_is_told_to_nobody(bench):
    bench.emitter.on("x", bench.listener("a"))
    assert bench.emitter.emit("y", 1) is False
    assert bench.heard == []


def test_a_listener_may_be_there_twice_and_goes_as_one(bench):
    listener = bench.listener("a")
    bench.emitter.on("x", listener)
    bench.emitter.on("x", listener)
    bench.emitter.emit("x")
    assert bench.heard == [("a",), ("a",)]
    bench.emitter.off("x", listener)
    assert not bench.emitter.has("x")
    assert bench.emitter.emit("x") is False


def test_once_is_once_also_when_emitted_from_inside(bench):
    def again() -> None:
        bench.heard.append(("once",))
        bench.emitter.emit("x")

    bench.emitter.on("x", again, once=True)
    bench.emitter.on("x", bench.listener("always"))
    bench.emitter.emit("x")
    assert bench.heard == [("once",), ("always",), ("always",)]


def test_a_listener_added_once_and_always_stays_for_always(bench):
    listener = bench.listener("a")
    bench.emitter.on("x", listener, once=True)
    bench.emitter.on("x", listener)
    bench.emitter.emit("x")
    bench.emitter.emit("x")
    assert bench.heard == [("a",)] * 3


def test_listeners_added_or_removed_meanwhile_count_next_time(bench):
    late = bench.listener("late")

    def busy() -> None:
        bench.emitter.on("x", late)
        bench.emitter.off("x", gone)

    gone = bench.listener("gone")
    bench.emitter.on("x", busy, once=True)
    bench.emitter.on("x", gone)
    bench.emitter.emit("x")
    assert bench.heard == [("gone",)]
    bench.emitter.emit("x")
    assert bench.heard == [("gone",), ("late",)]


def test_taking_away_a_listener_that_is_not_there_is_fine(bench):
    bench.emitter.off("x", print)
    bench.emitter.on("x", bench.listener("a"))
    bench.emitter.off("x", print)
    assert bench.emitter.has("x")


def test_one_listeners_error_is_reported_and_stops_nobody(bench):
    def broken(*_arguments: Any) -> None:
        raise ValueError("broken")

    bench.emitter.on("x", broken)
    bench.emitter.on("x", bench.listener("a"))
    assert bench.emitter.emit("x", 1) is True
    assert bench.errors == [("x", "broken")]
    assert bench.heard == [("a", 1)]


@pytest.mark.parametrize("kind", [asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit])
def test_what_is_no_exception_stops_nobody_either(bench, kind):
    def broken() -> None:
        raise kind("broken")

    bench.emitter.on("x", broken)
    bench.emitter.on("x", bench.listener("a"))
    assert bench.emitter.emit("x") is True
    assert bench.errors == [("x", "broken")]
    assert bench.heard == [("a",)]


async def test_a_coroutine_function_is_left_to_the_owner(bench):
    async def slow(value: int) -> None:
        await asyncio.sleep(0)
        bench.heard.append(("slow", value))

    bench.emitter.on("x", slow)
    bench.emitter.emit("x", 7)
    assert bench.heard == []
    for awaitable in bench.awaitables:
        await awaitable
    assert bench.heard == [("slow", 7)]


@pytest.mark.parametrize("listener", [None, "name", 5], ids=repr)
def test_what_cannot_be_called_is_refused(bench, listener):
    with pytest.raises(TypeError, match=rf"^a listener must be callable, not {type(listener).__name__}$"):
        bench.emitter.on("x", listener)
    assert not bench.emitter.has("x")


def test_it_knows_what_is_listened_to(bench):
    assert bench.emitter.names() == []
    bench.emitter.on("x", print)
    bench.emitter.on("y", bench.listener("y"), once=True)
    assert bench.emitter.names() == ["x", "y"]
    bench.emitter.emit("y")
    assert bench.emitter.names() == ["x"]
    assert bench.emitter.has("x")
    assert not bench.emitter.has("y")
