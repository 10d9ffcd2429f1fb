"""When a heartbeat beats, and how much one of its calls names; without a server."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from beeq import RedisUnavailable
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.connection import Connection
from beeq.redis.connector import Connector
from beeq.settings import Settings
from beeq.supervision.duty import Duty
from beeq.worker.heartbeat import Heartbeat
from beeq.worker.running_notes import WorkerLook
from beeq.worker.scheduling.ahead import AheadJobs

pytestmark = pytest.mark.fast

KEYS = Keys("bq", "beaten")
#: Of the waits that a test looks at.
COUNT = 40


class Beats:
    """A heartbeat whose calls and waits are written down, and take no time."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        held: dict[bytes, bytes],
        stall_interval: int,
        look: WorkerLook | None = None,
    ) -> None:
        self.calls: list[list[tuple[bytes, bytes]]] = []
        self.rests_s: list[float] = []
        self.is_redis_away = False
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()

        async def beat(_connection: Any, _keys: Keys, *, jobs: Any, **_arguments: Any) -> list[Any]:
            if self.is_redis_away:
                raise RedisUnavailable("away")
            self.calls.append(jobs)
            return [[], [], 1]

        async def rest(beating: Heartbeat, _duty: Any, rest_s: float) -> None:
            self.rests_s.append(rest_s)
            if len(self.rests_s) == COUNT:
                self._loop.call_soon_threadsafe(self._over.set)
                beating.stop()
            await asyncio.sleep(0)

        monkeypatch.setattr("beeq.redis.scripts.beat", beat)
        monkeypatch.setattr(Heartbeat, "_rest", rest)
        self._start = lambda: Heartbeat(
            Connector("redis://127.0.0.1:1", timeout_ms=100, slot_key=KEYS.jobs),
            KEYS,
            Settings(stall_interval=stall_interval),
            worker="somebody",
            held=lambda: (held, b""),
            look=lambda: look,
            ahead=AheadJobs(),
            on_returned=lambda _returned: None,
            on_living=lambda _count: None,
            take_counts=str,
            on_cancelled=lambda _claims: None,
            on_lost=lambda _claims: None,
            on_error=lambda _error: None,
            patience_s=60,
        )

    async def go_on(self) -> None:
        """Beat ``COUNT`` times, and end."""
        beating = self._start()
        await asyncio.wait_for(self._over.wait(), 30)
        await asyncio.to_thread(beating.join, 10)


@pytest.mark.parametrize("stall_interval", [50, 5000, 60_000])
async def test_beats_come_twice_a_stall_interval_and_not_in_step(monkeypatch, stall_interval):
    beats = Beats(monkeypatch, {}, stall_interval)
    await beats.go_on()
    longest_s = min(stall_interval / 2000, 10)
    assert max(beats.rests_s) <= longest_s
    assert min(beats.rests_s) >= longest_s / 10
    assert len(set(beats.rests_s)) > COUNT / 2


@pytest.mark.parametrize("stall_interval", [50, 5000, 60_000])
async def test_beats_that_failed_are_repeated_soon_and_not_in_step(monkeypatch, stall_interval):
    """The n-th retries of two workers that failed together come at different times."""
    runs = []
    for _ in range(2):
        beats = Beats(monkeypatch, {}, stall_interval)
        beats.is_redis_away = True
        await beats.go_on()
        runs.append(beats.rests_s)
    for n, pair in enumerate(zip(*runs, strict=True)):
        longest_s = min(0.1 * 2**n, 1.0, stall_interval / 2000)
        assert longest_s / 2 <= min(pair) <= max(pair) <= longest_s
    assert sum(first != second for first, second in zip(*runs, strict=True)) > COUNT / 2


@pytest.mark.parametrize(
    ("held", "most"),
    [
        ({b"%d" % n: b"token.%d:1" % n for n in range(1300)}, 500),
        ({b"%d" % n + b"x" * 8_000: b"token.%d:1" % n for n in range(20)}, 2),
        ({b"%d" % n + b"x" * 400_000: b"token.%d:1" % n for n in range(3)}, 1),
        ({}, 0),
    ],
)
async def test_one_call_names_few_jobs_and_few_bytes(monkeypatch, held, most):
    """However many there are: each job is named once a beat."""
    beats = Beats(monkeypatch, held, 5000)
    await beats.go_on()
    calls = beats.calls[: len(beats.calls) // COUNT]
    assert [pair for jobs in calls for pair in jobs] == list(held.items())
    assert max(len(jobs) for jobs in calls) == most


async def test_a_slow_redis_that_takes_notes_holds_up_no_beat(monkeypatch):
    """What does not fit between two beats is not noted; it would take fifty calls."""
    notes = 0

    async def run(_connection: Connection, script: Any, _call: bytes) -> int:
        nonlocal notes
        notes += script is scripts.note_running
        await asyncio.sleep(0.002)
        return 0

    monkeypatch.setattr(Connection, "run", run)
    running = [(b"%d" % n + b"x" * 512, 0) for n in range(2000)]
    beats = Beats(monkeypatch, {}, 50, WorkerLook(2000, True, running))
    await beats.go_on()
    assert COUNT <= notes <= 4 * COUNT


async def test_one_that_ends_before_it_begins_again_hangs_up_too(monkeypatch):
    closed: list[Any] = []
    broke = threading.Event()

    async def close(connector: Connector) -> None:
        closed.append(connector)

    async def run(_heartbeat: Heartbeat, _duty: Any) -> None:
        broke.set()
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(Connector, "close", close)
    monkeypatch.setattr(Heartbeat, "run", run)
    monkeypatch.setattr("beeq.worker.heartbeat._LONGEST_END_S", 0.01)
    monkeypatch.setattr(Duty, "again_s", lambda _duty: 60)
    beating = Beats(monkeypatch, {}, 5000)._start()
    assert await asyncio.to_thread(broke.wait, 30)
    beating.stop()
    await asyncio.to_thread(beating.join, 30)
    assert closed == [beating._connector]
