"""Judges a worker for the probes of an orchestrator, by the signs of its processes. Turns count, not jobs.

* started: all processes have connected once, and loaded their scripts.
* ready: in each process each queue's last turn, or a completed blocking wait, is younger than two stall
intervals. If all places are taken, no turn is needed; then the loop must run.
* alive: no process has stopped taking turns for a reason that a restart would end. A Redis that does not
answer is not such a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from beeq.metrics.board import ProcessSigns, ProcessState, QueueSigns
from beeq.queue import Queue
from beeq.worker.health import WorkerHealth
from beeq.worker.pump.blocking_fetch import FETCH_TIMEOUT_MS

#: How long a blocking wait on an empty queue may take, with any stall interval.
_LEAST_PATIENCE_MS = FETCH_TIMEOUT_MS + 1000
#: Processes write their signs several times a second; one that was silent for so long is suspended or hangs.
_LONGEST_SILENCE_S = 10.0
#: Duties whose turns show that the worker takes jobs as soon as there are some.
_TAKING = ("pump", "blocking fetch")


def signs_of(queue: Queue, health: WorkerHealth, *, now_ms: int) -> QueueSigns:
    """Return the state of one queue's work in this process."""
    patience_ms = max(2 * queue.settings.stall_interval, _LEAST_PATIENCE_MS)
    taking = [duty for duty in health.duties if duty.name in _TAKING]
    last_turn_ms = max([health.last_turn_ms or 0, *(duty.last_turn_ms for duty in taking)])
    is_full = bool(health.concurrency) and health.places_taken >= health.concurrency
    # A stopping worker needs no turns. A paused queue is checked each second for whether it still is.
    needs_turns = (health.is_taking or health.is_queue_paused) and not is_full
    is_late = needs_turns and now_ms - last_turn_ms > patience_ms
    is_blocked = health.loop_silent_ms > patience_ms
    has_failed = bool(health.error) or any(duty.state == "failed" for duty in taking)
    is_held_up = not (health.is_taking or health.is_queue_paused) and queue.is_running()
    is_full_of_hung = bool(health.hung) and is_held_up
    is_alive = not (is_late or is_blocked or has_failed or is_full_of_hung)
    return QueueSigns(
        busy=health.places_taken,
        slots=health.concurrency,
        last_turn_ms=last_turn_ms,
        is_ready=is_alive and bool(health.concurrency) and queue.is_running(),
        is_alive=is_alive,
    )


def why_not_started(processes: Sequence[ProcessSigns]) -> list[str]:
    """Return what has not started yet."""
    return [
        f"process {at} of {len(processes)} has not started"
        for at, process in enumerate(processes, 1)
        if process.state < ProcessState.WORKING
    ]


def why_not_ready(processes: Sequence[ProcessSigns]) -> list[str]:
    """Return which processes and queues take no turns."""
    return why_not_started(processes) + [
        f"process {process.pid}, queue {name}: takes no turns"
        for process in processes
        if process.state is ProcessState.WORKING
        for name, signs in process.queues.items()
        if signs.slots and not (signs.is_ready and process.age_s < _LONGEST_SILENCE_S)
    ]


def why_not_alive(processes: Sequence[ProcessSigns], *, answered: Collection[str]) -> list[str]:
    """Return what only a restart would end. A process that has died is replaced by its parent.

    ``answered`` are the queues whose Redis answers: a restart does not end an outage.
    """
    return [line for queue, line in stuck(processes) if queue in answered or (not queue and answered)]


def stuck(processes: Sequence[ProcessSigns]) -> list[tuple[str, str]]:
    """Return the queues that take no turns, with a line each; "" means all of a process."""
    found = []
    for process in processes:
        if process.pid and process.age_s > _LONGEST_SILENCE_S:
            found.append(("", f"process {process.pid} does not respond"))
        elif process.state is ProcessState.WORKING:
            names = [name for name, signs in process.queues.items() if not signs.is_alive]
            found += [(name, f"process {process.pid}, queue {name}: takes no turns") for name in names]
    return found
