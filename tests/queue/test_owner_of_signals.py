"""A process has one owner of its signals: a queue that runs in another program leaves them to that."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
import uvloop

from beeq.process import stop_signals
from tests.support.waiting import eventually, pause

STOPS = (signal.SIGINT, signal.SIGTERM)
loops = pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
hosts = pytest.mark.parametrize("host", ["signal", "loop"])


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Leave the process's handlers as they were."""
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run_in(kind: str, main: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if kind == "uvloop" else None) as runner:
        runner.run(main())


class Host:
    """A program that handles SIGTERM, by ``signal`` or by its loop."""

    def __init__(self, how: str) -> None:
        self.heard: list[int] = []
        self._how = how

    def install(self) -> None:
        if self._how == "loop":
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.heard.append, signal.SIGTERM)
        else:
            signal.signal(signal.SIGTERM, self._handle)

    def _handle(self, number: int, _frame: object) -> None:
        self.heard.append(number)

    def has_heard(self, count: int) -> bool:
        return len(self.heard) == count

    def remove(self) -> None:
        if self._how == "loop":
            asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


def guest(heard: list[str], name: str = "guest") -> Any:
    return stop_signals(lambda _number: heard.append(name), takes_over=False)


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@loops
@hosts
def test_a_host_that_came_first_hears_every_signal(kind, host):
    heard: list[str] = []

    async def main():
        program = Host(host)
        program.install()
        before = {number: signal.getsignal(number) for number in STOPS}
        with guest(heard):
            assert {number: signal.getsignal(number) for number in STOPS} == before
            for count in (1, 2):
                send()
                await eventually(functools.partial(program.has_heard, count))
        assert {number: signal.getsignal(number) for number in STOPS} == before
        program.remove()

    run_in(kind, main)
    assert heard == []


@loops
@hosts
def test_a_host_that_comes_later_hears_every_signal(kind, host):
    heard: list[str] = []

    async def main():
        program = Host(host)
        with guest(heard):
            program.install()
            send()
            await eventually(lambda: program.heard == [signal.SIGTERM])
        send()
        await eventually(lambda: program.heard == [signal.SIGTERM] * 2)
        program.remove()

    run_in(kind, main)
    assert heard == []


@loops
@hosts
@pytest.mark.parametrize("comes_first", [True, False])
def test_who_handles_one_stop_is_left_the_other(kind, host, comes_first):
    """The program stops at SIGTERM its way, so Ctrl-C is for ``asyncio.run``, which cancels the main task."""
    heard: list[str] = []

    async def main():
        program = Host(host)
        if comes_first:
            program.install()
        with guest(heard):
            if not comes_first:
                program.install()
            send(signal.SIGINT)
            try:
                await asyncio.wait_for(asyncio.Event().wait(), 30)
            finally:
                program.remove()

    with pytest.raises(KeyboardInterrupt):
        run_in(kind, main)
    assert heard == []


@loops
def test_nobodys_signals_are_taken_by_all_queues_of_the_loop(kind):
    heard: list[str] = []

    async def main():
        with guest(heard, "a"), guest(heard, "b"):
            for number in STOPS:
                heard.clear()
                send(number)
                await eventually(lambda: heard == ["a", "b"])
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    run_in(kind, main)


@loops
def test_a_command_takes_what_it_finds_and_a_guest_shares_it(kind):
    heard: list[str] = []

    async def main():
        program = Host("signal")
        program.install()
        with stop_signals(lambda _number: heard.append("command")), guest(heard):
            send()
            await eventually(lambda: heard == ["command", "guest"])
        assert program.heard == []

    run_in(kind, main)


def test_an_ignored_signal_stays_ignored_and_is_nobodys():
    """As in a shell's background."""
    heard: list[str] = []

    async def main():
        with guest(heard):
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            send(signal.SIGINT)
            send()
            await eventually(lambda: heard == ["guest"])

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asyncio.run(main())


def test_a_loop_that_pauses_takes_no_signal():
    heard: list[str] = []
    loop = asyncio.new_event_loop()

    async def begin():
        asking = guest(heard)
        asking.__enter__()
        return asking

    asking = loop.run_until_complete(begin())
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    loop.run_until_complete(pause(0))
    assert heard == []
    asking.__exit__(None, None, None)
    loop.close()


def test_a_loop_that_pauses_keeps_signals_from_no_other():
    heard: list[str] = []
    paused = asyncio.new_event_loop()

    async def begin():
        asking = guest(heard, "paused")
        asking.__enter__()
        return asking

    asking = paused.run_until_complete(begin())

    async def main():
        with guest(heard, "running"):
            send()
            await eventually(lambda: heard == ["running"])

    asyncio.run(main())
    asking.__exit__(None, None, None)
    paused.close()


async def serve_nothing(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


@loops
@pytest.mark.parametrize("comes_first", [True, False])
def test_uvicorn_hears_the_first_signal(kind, comes_first):
    """When it has ended, it raises the signal again for the handler that it found: the guest's, or the test's."""
    heard: list[str] = []
    again: list[Any] = []

    async def main():
        if not comes_first:
            signal.signal(signal.SIGTERM, lambda _number, _frame: again.append(1))
        server = uvicorn.Server(uvicorn.Config(serve_nothing, port=0, lifespan="off", log_config=None))
        with guest(heard):
            serving = asyncio.ensure_future(server.serve())
            await eventually(lambda: server.started)
            send()
            await asyncio.wait_for(serving, 30)
            await pause(0)
        assert heard == ["guest"] * comes_first
        assert len(again) == (not comes_first)

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    run_in(kind, main)
