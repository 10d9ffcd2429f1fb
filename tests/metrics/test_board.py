"""What the processes of a worker know of themselves, in shared memory."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from beeq import JobLost
from beeq.metrics.board import MOST_QUEUES, Board, ProcessState, QueueSigns

pytestmark = pytest.mark.fast
SIGNS = QueueSigns(busy=2, slots=5, last_turn_ms=1_700_000_000_123, is_ready=True, is_alive=True)


def in_child(act: Callable[[], object]) -> None:
    """Run ``act`` in a forked child, and wait for its end."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_what_a_dead_process_has_counted_stays_and_its_signs_go() -> None:
    board = Board(2)

    def work() -> None:
        board.places[0].take(["mail"])["mail"].enqueued(7)
        board.places[0].write(ProcessState.WORKING, {"mail": SIGNS})

    in_child(work)
    assert board.signs()[0].queues == {"mail": SIGNS}
    board.places[0].free(ProcessState.AWAITED)
    assert board.signs()[0].queues == {}
    assert board.signs()[0].state is ProcessState.AWAITED
    assert board.counts()["mail"].enqueued == 7
    in_child(lambda: board.places[0].take(["other", "mail"])["mail"].enqueued(1))
    board.places[1].take(["mail"])["mail"].enqueued(10)
    assert board.counts()["mail"].enqueued == 18
    assert board.signs()[0].queues["mail"] == QueueSigns(0, 0, 0, is_ready=False, is_alive=True)


@pytest.mark.parametrize("name", ["a:b", "{tag}", '"\\\n', "ünïcode 🐝", "x" * 1000])
def test_any_name_of_a_queue_is_kept(name: str) -> None:
    board = Board(1)
    board.places[0].take([name])[name].reported(JobLost("1"))
    assert board.counts()[name].lost == 1


def test_queues_beyond_the_room_are_not_counted() -> None:
    board = Board(1)
    names = [f"queue {n}" for n in range(MOST_QUEUES + 5)]
    assert len(board.places[0].take(names)) == MOST_QUEUES
    assert len(Board(1).places[0].take(["x" * 20_000 + str(n) for n in range(9)])) == 3
