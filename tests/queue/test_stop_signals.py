"""Who hears SIGINT and SIGTERM when several runs share a process, and whose handlers are there afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
import uvloop

from beeq.process import stop_signals
from tests.support.waiting import eventually, pause

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Leave the process's handlers as they were."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Run:
    """Asks for signals, and writes down each."""

    def __init__(self) -> None:
        self.count = 0
        self._asking = stop_signals(self._heard)

    def _heard(self, _number: int) -> None:
        self.count += 1

    def __enter__(self) -> Self:
        self._asking.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._asking.__exit__(None, None, None)


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def run_in(kind: str, main: Any) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if kind == "uvloop" else None) as runner:
        runner.run(main())


loops = pytest.mark.parametrize("kind", ["asyncio", "uvloop"])


@loops
def test_two_signals_reach_every_run_of_a_loop(kind):
    async def main():
        with Run() as first, Run() as second:
            send()
            await eventually(lambda: (first.count, second.count) == (1, 1))
            send(signal.SIGINT)
            await eventually(lambda: (first.count, second.count) == (2, 2))

    run_in(kind, main)


@loops
def test_runs_may_begin_and_end_at_different_times(kind):
    """The end of one takes the signals from nobody; who comes while the others stop is to stop, too."""
    found: list[int] = []

    async def main():
        signal.signal(signal.SIGTERM, lambda number, _frame: found.append(number))
        first, second, third = Run(), Run(), Run()
        first.__enter__()
        second.__enter__()
        first.__exit__()
        send()
        await eventually(lambda: second.count == 1)
        assert first.count == 0
        with third:
            second.__exit__()
            await eventually(lambda: third.count == 1)
        assert found == []
        send()
        with Run() as fourth:
            await pause(0)
            assert fourth.count == 0  # the earlier signals were the others'
        assert found == [signal.SIGTERM]

    run_in(kind, main)


@loops
def test_the_processs_handlers_are_back_afterwards(kind):
    def mine(_number, _frame):
        """Stop, my way."""

    async def main():
        before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGTERM, mine)
        first, second = Run().__enter__(), Run().__enter__()
        first.__exit__()
        assert signal.getsignal(signal.SIGTERM) is not mine
        second.__exit__()
        assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGINT) is before

    run_in(kind, main)


@loops
def test_the_loops_own_handler_is_back_afterwards(kind):
    heard: list[str] = []

    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, heard.append, "mine")
        with Run() as run:
            send()
            await eventually(lambda: run.count == 1)
        if kind == "asyncio":
            assert heard == []
        heard.clear()
        send()
        await eventually(lambda: heard == ["mine"])
        loop.remove_signal_handler(signal.SIGTERM)

    run_in(kind, main)


def test_a_signal_is_for_those_only_who_ask_for_it():
    heard: list[str] = []

    def asking(name: str, *numbers: signal.Signals) -> Any:
        return stop_signals(
            lambda _number: heard.append(name),
            numbers=numbers,
            at_once=lambda: heard.append(f"{name} at once"),
        )

    async def main() -> None:
        with asking("both", signal.SIGINT, signal.SIGTERM), asking("term", signal.SIGTERM):
            send(signal.SIGINT)
            await eventually(lambda: "both" in heard)
            with asking("late term", signal.SIGTERM), asking("late int", signal.SIGINT):
                await eventually(lambda: "late int" in heard)

    run_in("asyncio", main)
    assert heard == ["both at once", "both", "late int"]


@pytest.mark.parametrize("how", ["signal", "loop"])
def test_a_handler_that_came_during_the_run_stays(how):
    heard: list[int] = []

    async def main():
        loop = asyncio.get_running_loop()
        with Run():
            if how == "signal":
                signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
            else:
                loop.add_signal_handler(signal.SIGTERM, heard.append, signal.SIGTERM)
        send()
        await eventually(lambda: heard == [signal.SIGTERM])
        if how == "loop":
            loop.remove_signal_handler(signal.SIGTERM)

    asyncio.run(main())


def test_the_third_signal_goes_to_the_handler_found():
    heard: list[int] = []

    async def main():
        signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))
        with Run() as run:
            for _ in range(3):
                send()
            await eventually(lambda: (run.count, heard) == (2, [signal.SIGTERM]))

    asyncio.run(main())


def test_loops_one_after_the_other_each_hear_theirs():
    async def main():
        with Run() as run:
            send()
            await eventually(lambda: run.count == 1)

    before = signal.getsignal(signal.SIGTERM)
    for _ in range(3):
        asyncio.run(main())
        assert signal.getsignal(signal.SIGTERM) is before


def test_a_loop_that_was_left_with_a_run_gives_its_signal_away():
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: heard.append(number))

    async def begin():
        return Run().__enter__()

    loop = asyncio.new_event_loop()
    left = loop.run_until_complete(begin())
    loop.close()
    os.kill(os.getpid(), signal.SIGTERM)
    assert heard == [signal.SIGTERM]
    left.__exit__()


def test_a_loop_without_signals_is_stopped_by_them_too():
    class Loop(asyncio.SelectorEventLoop):
        def add_signal_handler(self, *_arguments: Any) -> None:  # type: ignore[override]  # refuses all
            raise NotImplementedError

    async def main():
        with Run() as run:
            send()
            await eventually(lambda: run.count == 1)

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(main())


def test_a_run_in_another_thread_leaves_the_signals_alone():
    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    async def main():
        with Run():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    thread.join(PATIENCE_S)
    assert seen == [before]


BLOCKED = """
import asyncio, signal, time
from beeq.process import stop_signals
from tests.support.waiting import eventually, pause

async def main():
    with stop_signals(lambda number: None):
        print("blocked", flush=True)
        while True:
            time.sleep(60)

asyncio.run(main())
"""


def test_the_third_signal_ends_a_process_whose_loop_is_blocked():
    with subprocess.Popen(
        [sys.executable, "-c", BLOCKED], stdout=subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"blocked\n"
        deadline = threading.Timer(PATIENCE_S, process.kill)
        deadline.start()
        while process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)  # signals that come together count once
        deadline.cancel()
        assert process.returncode == -signal.SIGTERM


TWO = """
import asyncio, sys
from beeq import Queue

async def main(url, name):
    queues = [Queue(f"{name}-{n}", redis=url) for n in range(2)]
    for queue in queues:
        @queue.process
        async def handler(job, queue=queue):
            print("started", flush=True)
            while queue.is_running():
                await asyncio.sleep(0.01)
            print("asked to stop", flush=True)
            if job.data == "hang":
                await asyncio.Event().wait()

    ended = await asyncio.gather(*(queue.run() for queue in queues), return_exceptions=True)
    print([str(error) for error in ended], [queue.is_running() for queue in queues])

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("kind", ["end", "hang"])
async def test_a_signal_stops_both_queues_and_the_next_hurries_both(make_queue, valkey, queue_name, kind):
    for number in range(2):
        await make_queue(f"{queue_name}-{number}", is_worker=False).enqueue(kind)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", TWO, valkey.url, queue_name),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE_S):
            assert [await process.stdout.readline() for _ in range(2)] == [b"started\n"] * 2
            process.terminate()
            assert [await process.stdout.readline() for _ in range(2)] == [b"asked to stop\n"] * 2
            if kind == "hang":
                process.terminate()
            assert (await process.stdout.read()).decode() == f"{['None'] * 2} [False, False]\n"
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_copy_of_the_process_is_ended_by_a_signal():
    """The loop of which it is a copy does not run there; ``multiprocessing`` waits for its end."""
    begun, begins = os.pipe()
    with Run() as run:
        process = multiprocessing.get_context("fork").Process(target=say_and_wait, args=(begins,))
        process.start()
        await asyncio.to_thread(os.read, begun, 1)
        process.terminate()
        await asyncio.to_thread(process.join, PATIENCE_S)
        assert process.exitcode == -signal.SIGTERM
        assert run.count == 0


def say_and_wait(fd: int) -> None:
    os.write(fd, b".")
    threading.Event().wait()


async def test_a_first_signal_during_a_close_lets_jobs_end(make_queue: Any, caplog: pytest.LogCaptureFixture):
    queue = make_queue()
    has_begun, may_end = asyncio.Event(), asyncio.Event()

    @queue.process
    async def handle(_job: Any) -> str:
        has_begun.set()
        await may_end.wait()
        return "ended"

    with caplog.at_level("INFO", logger="beeq"):
        running = asyncio.create_task(queue.run())
        job = await queue.enqueue({})
        result = asyncio.create_task(job.result())
        await has_begun.wait()
        closing = asyncio.create_task(queue.close(60_000))
        await eventually(lambda: not queue.is_running())
        send()
        await eventually(lambda: "SIGTERM" in caplog.text)
        may_end.set()
        assert await result == "ended"
        await asyncio.gather(running, closing)
    assert "SIGTERM: no more jobs are taken; 1 job that runs may take up to 30 s to end" in caplog.text
