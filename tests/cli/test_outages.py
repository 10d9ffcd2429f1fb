"""What many queues of a command meet alike is one line of its log, then a count, then that it is over."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from beeq import RedisRefused, RedisUnavailable
from beeq_cli import outages
from beeq_cli.outages import MAX_KINDS, Outages
from tests.cli.command import Beeq


class Clock:
    now = 50.0

    def monotonic(self) -> float:
        return self.now


class Team:
    """Queues by name, as far as ``Outages`` needs them, and what is logged of them."""

    def __init__(self, count: int, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO, "beeq")
        self._caplog = caplog
        self.listeners: dict[str, dict[str, Any]] = {}
        self.outages = Outages()
        for n in range(count):
            self.add(f"q{n}")

    @property
    def lines(self) -> list[str]:
        """What was logged."""
        return [message.removeprefix("queue ") for message in self._caplog.messages]

    def add(self, name: str) -> None:
        listeners = self.listeners[name] = {}

        class One:
            def __init__(self) -> None:
                self.name = name

            on = staticmethod(listeners.__setitem__)

        self.outages.follow(One())  # type: ignore[arg-type]  # all that is asked of a queue

    def meet(self, error: type[Exception], text: str, *, repeated: int = 0) -> None:
        for listeners in self.listeners.values():
            met: Any = error(text)
            if repeated:
                met.repeated = repeated
            listeners["error"](met)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(outages, "time", clock)
    return clock


def test_one_outage_of_many_queues_is_one_line(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    team = Team(200, caplog)
    team.meet(RedisUnavailable, "away")
    away = "q0: RedisUnavailable: away"
    assert team.lines == [away]
    team.meet(RedisUnavailable, "reset")
    team.meet(RedisRefused, "OOM")
    assert team.lines == [away, "q0: RedisUnavailable: reset", "q0: RedisRefused: OOM"]
    clock.now += 10
    team.meet(RedisUnavailable, "away", repeated=4)
    assert team.lines[3:] == [f"{away} (204 times, in 200 queues, since it was last said)"]
    for listeners in team.listeners.values():
        assert len(team.lines) == 4
        listeners["reconnected"](10_000, 8)
    assert team.lines[4:] == ["Redis is back after 10.0 s (1600 errors, in 200 queues)"]
    assert vars(caplog.records[-1])["duration_ms"] == 10_000
    team.meet(RedisUnavailable, "away")
    assert team.lines[5:] == [away], "the next outage is said at once"


def test_an_error_that_is_not_redis_s_is_logged_each_time(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    team = Team(3, caplog)
    team.meet(ValueError, "x")
    assert team.lines == [f"q{n}: ValueError: x" for n in range(3)]


def test_an_error_that_comes_back_later_is_logged_at_once(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    team = Team(1, caplog)
    team.meet(RedisRefused, "OOM")
    clock.now += 30
    team.meet(RedisRefused, "OOM")
    assert team.lines == ["q0: RedisRefused: OOM"] * 2


def test_so_many_kinds_are_known_and_no_more(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    team = Team(1, caplog)
    for n in range(3 * MAX_KINDS):
        team.meet(RedisRefused, f"no {n}")
    assert len(team.lines) == 3 * MAX_KINDS
    assert len(team.outages._kinds) == MAX_KINDS


def test_a_worker_command_says_an_outage_once_and_its_end(
    own_valkey: Any, beeq: Beeq, queue_name: str
) -> None:
    names = [f"{queue_name}-{n}" for n in range(20)]
    beeq.app(
        "import os\nfrom beeq import Queue\n"
        "queues = [Queue(name) for name in os.environ['TEST_QUEUES'].split()]\n"
        "for queue in queues:\n    queue.process(lambda job: None)\n"
    )
    worker = beeq.start(
        *("worker", *names, "--app", "app:queues", "--redis-url", own_valkey.url), TEST_QUEUES=" ".join(names)
    )
    worker.until("Queue worker started")
    own_valkey.stop()
    worker.until(queue_name)
    own_valkey.start()
    assert worker.until("Redis is back after").endswith("in 20 queues)")
    assert len(worker.seen) < 15, worker.seen
