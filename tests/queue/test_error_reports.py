"""The same error of Redis's is not said again and again; a different one is, at once; and when Redis is back."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from beeq import RedisRefused, RedisUnavailable
from beeq.errors import JobLost, RedisSilent
from beeq.supervision import error_reports
from beeq.supervision.error_reports import MAX_KINDS, REFUSALS, ErrorReports


class Clock:
    """Time that passes when a report sleeps, and not otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, delay_s: float) -> None:
        self.now += delay_s
        await asyncio.sleep(0)


class Bench:
    """Reports whose listeners, log and Redis are the test's."""

    def __init__(self, *, listens: bool = True) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.listens = listens
        self.is_back = False
        self.asked = 0
        self.closed = 0
        self.tasks: list[asyncio.Task[None]] = []
        self.reports = ErrorReports(
            "mail",
            emit=self._emit,
            spawn=self._spawn,
            connection=self,  # type: ignore[arg-type]  # all that is asked of one
        )

    def _emit(self, *event: Any) -> bool:
        if self.listens:
            self.said.append(event)
        return self.listens

    def _spawn(self, following: Any) -> bool:
        self.tasks.append(asyncio.get_running_loop().create_task(following))
        return True

    async def call(self, command: str) -> bytes:
        assert command == "PING"
        self.asked += 1
        if not self.is_back:
            raise RedisUnavailable("away")
        return b"PONG"

    async def close(self) -> None:
        self.closed += 1

    def errors(self) -> list[tuple[str, int]]:
        return [(str(event[1]), event[1].repeated) for event in self.said if event[0] == "error"]

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(error_reports, "time", clock)
    monkeypatch.setattr(error_reports, "asyncio", clock)
    return clock


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_the_first_is_said_at_once_and_then_a_count_now_and_then(clock: Clock) -> None:
    bench = Bench()
    began = clock.now
    times: list[float] = []
    while clock.now < began + 120:
        before = len(bench.said)
        bench.reports.report(RedisUnavailable("away"))
        await turns(1)
        times += [clock.now - began] * (len(bench.said) - before)
    assert len(times) == 5
    assert all(0 <= at - due <= 1.5 for at, due in zip(times, (0, 5, 15, 35, 75), strict=True)), times
    first, *others = bench.errors()
    assert first == ("away", 0)
    assert sum(1 + more for _text, more in others) <= 120 / 0.5 + 1
    assert all(more > 5 for _text, more in others)
    assert bench.said[1][1].__notes__ == [f"{others[0][1]} more of them since it was last said"]
    await bench.stop()


async def test_different_errors_are_said_at_once_in_the_middle_of_it(clock: Clock) -> None:
    bench = Bench()
    errors = [RedisUnavailable("away"), RedisUnavailable("reset"), RedisSilent("away"), RedisRefused("OOM")]
    for error in errors:
        bench.reports.report(error)
        bench.reports.report(RedisUnavailable("away"))
    assert [event[1] for event in bench.said] == errors
    await bench.stop()


async def test_what_is_not_redis_is_said_each_time(clock: Clock) -> None:
    bench = Bench()
    for _ in range(3):
        bench.reports.report(JobLost("1"))
        bench.reports.report(ValueError("x"))
    assert len(bench.said) == 6
    assert bench.tasks == []


async def test_that_redis_is_back_is_said_once(clock: Clock) -> None:
    bench = Bench()
    for _ in range(7):
        bench.reports.report(RedisUnavailable("away"))
        await turns(1)
    bench.is_back = True
    await asyncio.wait_for(asyncio.gather(*bench.tasks), 5)
    name, away_ms, count = bench.said[-1]
    assert (name, count) == ("reconnected", 7)
    assert 3000 <= away_ms <= 12_000
    assert bench.closed == 1
    bench.reports.report(RedisUnavailable("away"))
    assert bench.said[-1][0] == "error", "the next outage is said at once"
    await bench.stop()


async def test_once_redis_is_back_no_error_is_said_again(clock: Clock) -> None:
    bench = Bench()
    for _ in range(3):
        bench.reports.report(RedisUnavailable("away"))
    began = clock.now
    while clock.now < began + error_reports.FIRST_REST_S - 1:
        await turns(1)
    bench.is_back = True
    await asyncio.wait_for(asyncio.gather(*bench.tasks), 5)
    assert [event[0] for event in bench.said] == ["error", "reconnected"]
    assert bench.said[-1][2] == 3


async def test_redis_is_not_back_while_a_duty_meets_the_error(clock: Clock) -> None:
    bench = Bench()
    bench.is_back = True
    for _ in range(40):
        bench.reports.report(RedisUnavailable("away"))
        await turns(1)
    assert [event[0] for event in bench.said].count("reconnected") == 0
    await asyncio.wait_for(asyncio.gather(*bench.tasks), 5)
    assert bench.said[-1][0] == "reconnected"


async def test_a_refusal_is_counted_too_and_nobody_is_asked(clock: Clock) -> None:
    bench = Bench()
    for _ in range(REFUSALS + 2):
        bench.reports.report(RedisRefused("NOPERM"))
    assert bench.errors() == [("NOPERM", 0)] * REFUSALS
    await asyncio.wait_for(asyncio.gather(*bench.tasks), 5)
    assert bench.errors()[REFUSALS:] == [("NOPERM", 1)]
    assert bench.asked == 0
    clock.now += 100
    bench.reports.report(RedisRefused("NOPERM"))
    assert bench.errors()[-1] == ("NOPERM", 0)


async def test_so_many_kinds_are_known_and_no_more(clock: Clock) -> None:
    bench = Bench()
    for n in range(3 * MAX_KINDS):
        bench.reports.report(RedisUnavailable(f"no {n}"))
        bench.reports.report(RedisUnavailable(f"no {n}"))
    assert len(bench.reports._kinds) == MAX_KINDS
    assert len(bench.said) == 3 * MAX_KINDS + 2 * MAX_KINDS, "what is forgotten is said before"
    await bench.stop()


async def test_without_a_listener_it_is_logged(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "beeq")
    bench = Bench(listens=False)
    for _ in range(12):
        bench.reports.report(RedisUnavailable("away"))
        await turns(1)
    bench.is_back = True
    await asyncio.wait_for(asyncio.gather(*bench.tasks), 5)
    lines = caplog.messages
    assert lines[0] == "queue mail: RedisUnavailable: away"
    assert lines[1].startswith("queue mail: RedisUnavailable: away (")
    assert lines[1].endswith(" more of them since it was last said)")
    assert "queue mail: Redis is back after" in caplog.text
