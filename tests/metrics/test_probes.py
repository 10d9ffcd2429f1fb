"""When a worker counts as started, ready and alive."""

from __future__ import annotations

from typing import Any

import pytest

from beeq import DutyHealth, Queue, WorkerHealth
from beeq.metrics.board import ProcessSigns, ProcessState, QueueSigns
from beeq.metrics.probes import signs_of, why_not_alive, why_not_ready, why_not_started

pytestmark = pytest.mark.fast
NOW_MS = 1_700_000_000_000
FINE = QueueSigns(busy=0, slots=1, last_turn_ms=NOW_MS, is_ready=True, is_alive=True)
STUCK = QueueSigns(busy=0, slots=1, last_turn_ms=NOW_MS, is_ready=False, is_alive=False)


def signs(silent_ms: int = 0, *, duty: str = "pump", state: Any = "running", **health: Any) -> QueueSigns:
    duties = (DutyHealth(duty, state, NOW_MS - silent_ms, silent_ms, 0, ""),)
    known = {"is_healthy": True, "is_taking": True, "concurrency": 2, **health}
    return signs_of(Queue("mail", stall_interval=5000), WorkerHealth(duties=duties, **known), now_ms=NOW_MS)


def process(
    state: ProcessState = ProcessState.WORKING, age_s: float = 0.1, **queues: QueueSigns
) -> ProcessSigns:
    return ProcessSigns(
        7 if state in (ProcessState.STARTING, ProcessState.WORKING) else 0, state, age_s, queues
    )


@pytest.mark.parametrize(
    ("seen", "is_well"),
    [
        (signs(9_900), True),
        (signs(10_100), False),
        (signs(9_900, duty="blocking fetch"), True),
        (signs(60_000, places_taken=2, running=2), True),
        (signs(60_000, places_taken=1, running=1), False),
        (signs(0, places_taken=2, loop_silent_ms=10_100), False),
        (signs(0, loop_silent_ms=9_900), True),
        (signs(60_000, is_taking=False), True),
        (signs(0, is_taking=False, hung=10), False),
        (signs(0, is_taking=False, hung=1, is_queue_paused=True), True),
        (signs(60_000, is_taking=False, is_queue_paused=True), False),
        (signs(0, error="ValueError: defect"), False),
        (signs(0, state="failed"), False),
    ],
    ids=[
        "young turn", "old turn", "young blocking wait", "all places run jobs", "a free place",
        "blocked loop", "loop blocked shortly", "stopping", "hung handlers", "paused", "paused and away", "failed", "given up",
    ],
)  # fmt: skip
def test_turns_make_a_worker_ready_and_alive(seen: QueueSigns, is_well: bool) -> None:
    assert (seen.is_ready, seen.is_alive) == (is_well, is_well)


def test_a_worker_starts_once_all_its_processes_have() -> None:
    assert why_not_started([process(mail=FINE), process(ProcessState.DONE)]) == []
    assert why_not_started([process(mail=FINE), process(ProcessState.STARTING)]) == [
        "process 2 of 2 has not started"
    ]


def test_one_process_that_takes_no_turns_is_named() -> None:
    processes = [process(mail=FINE, other=STUCK), process(mail=FINE)]
    assert why_not_ready(processes) == ["process 7, queue other: takes no turns"]
    assert why_not_alive(processes, answered={"other"}) == ["process 7, queue other: takes no turns"]


def test_an_outage_of_a_queues_redis_ends_no_process() -> None:
    assert why_not_alive([process(mail=FINE, other=STUCK)], answered={"mail"}) == []


def test_a_process_that_stands_still_is_neither_ready_nor_alive() -> None:
    assert why_not_ready([process(age_s=11, mail=FINE)])
    processes = [process(age_s=11, mail=FINE)]
    assert why_not_alive(processes, answered={"mail"}) == ["process 7 does not respond"]
    assert why_not_alive(processes, answered=()) == []


def test_a_dead_process_is_its_parents_to_replace() -> None:
    assert why_not_alive([process(ProcessState.AWAITED, age_s=1000)], answered={"mail"}) == []
    assert why_not_ready([process(ProcessState.AWAITED)]) == ["process 1 of 1 has not started"]
