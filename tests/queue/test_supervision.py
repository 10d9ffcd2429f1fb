"""Supervision by itself: a duty is restarted after any end; only a real hang counts as one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from beeq.errors import DutyEnded, DutySilent
from beeq.supervision.duties import Duties, patience_s_of
from beeq.supervision.duty import Duty
from beeq.supervision.supervised_task import SupervisedTask

PATIENCE_S = 0.2


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    def add_note(self, _note: str) -> None:
        raise ValueError("no notes")


class Team:
    """Duties, what they reported, and whether Redis is there."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []
        self.is_redis_there = True
        self.asked = 0
        self.duties = Duties(on_error=self.errors.append, patience_s=PATIENCE_S, is_redis_there=self._ask)

    async def _ask(self) -> bool:
        self.asked += 1
        return self.is_redis_there


@pytest.fixture
async def team() -> AsyncIterator[Team]:
    team = Team()
    yield team
    await team.duties.close()


def breaking_once(break_it: Callable[[], Any], begun: list[Duty]) -> Any:
    """Return a duty's coroutine function that breaks so at its first beginning."""

    async def run(duty: Duty) -> None:
        begun.append(duty)
        if len(begun) == 1:
            broken = break_it()
            if broken is not None:
                await broken
            return
        while True:
            await duty.rest(1)

    return run


def raising(error: BaseException) -> Callable[[], None]:
    def break_it() -> None:
        raise error

    return break_it


ENDS = [
    ValueError("a defect"),
    KeyboardInterrupt(),
    SystemExit(1),
    GeneratorExit(),
    StopIteration(),
    StopAsyncIteration(),
    BaseExceptionGroup("several", [KeyboardInterrupt()]),
    Unprintable(),
]


@pytest.mark.parametrize("error", ENDS, ids=lambda error: type(error).__name__)
async def test_a_duty_begins_again_whatever_it_raises(team, eventually, error):
    begun: list[Duty] = []
    task = team.duties.start("duty", breaking_once(raising(error), begun))
    await eventually(lambda: len(begun) == 2)
    (reported,) = team.errors
    assert reported is error or reported.__cause__ is error  # asyncio wraps StopIteration
    assert type(error).__name__ in task.duty.health().error


async def test_a_duty_that_was_cancelled_begins_again(team, eventually):
    begun: list[Duty] = []
    team.duties.start("duty", breaking_once(asyncio.Event().wait, begun))
    await eventually(lambda: begun)
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "beeq duty"]
    task.cancel()
    await eventually(lambda: len(begun) == 2)
    assert [str(error) for error in team.errors] == ["the duty was cancelled; it is begun again"]


def test_a_loop_that_ends_with_its_duties_reports_none():
    team = Team()
    begun: list[Duty] = []

    async def main() -> None:
        team.duties.start("duty", breaking_once(asyncio.Event().wait, begun))
        await asyncio.sleep(0)

    asyncio.run(main())
    assert (len(begun), team.errors) == (1, [])


async def test_one_look_at_a_loop_that_goes_on_is_not_enough(eventually):
    """A loop that ends takes its last steps when all that was cancelled has ended."""
    looks = [True, False, True, True]
    left = looks.copy()
    begun: list[Duty] = []
    errors: list[BaseException] = []
    supervised = SupervisedTask(
        "duty",
        breaking_once(asyncio.Event().wait, begun),
        patience_s=PATIENCE_S,
        on_error=errors.append,
        may_begin_again=lambda _cancelled_at_s: left.pop(0),
    )
    supervised.start()
    await eventually(lambda: begun)
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "beeq duty"]
    task.cancel()
    await eventually(lambda: len(begun) == 2)
    assert (left, len(errors)) == ([], 1)
    await supervised.stop(1)


async def test_one_that_ignores_its_cancellation_is_replaced(team, eventually):
    release = asyncio.Event()

    async def stay() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    begun: list[Duty] = []
    team.duties.start("duty", breaking_once(stay, begun))
    await eventually(lambda: len(begun) == 2)
    assert [type(error) for error in team.errors] == [DutySilent]
    release.set()


async def test_a_report_that_fails_keeps_no_duty_from_beginning(eventually, caplog):
    def report(_error: BaseException) -> None:
        raise ValueError("nobody listens")

    async def is_there() -> bool:
        return True

    duties = Duties(on_error=report, patience_s=PATIENCE_S, is_redis_there=is_there)
    begun: list[Duty] = []
    duties.start("duty", breaking_once(lambda: None, begun))
    await eventually(lambda: len(begun) == 2)
    assert "could not be reported" in caplog.text
    await duties.close()


async def test_a_silent_duty_is_let_be_while_redis_is_away(team, eventually):
    team.is_redis_there = False
    begun: list[Duty] = []
    team.duties.start("duty", breaking_once(asyncio.Event().wait, begun))
    await eventually(lambda: team.asked > 3)
    assert (len(begun), team.errors) == (1, [])
    team.is_redis_there = True
    await eventually(lambda: len(begun) == 2)
    assert [type(error) for error in team.errors] == [DutySilent]


async def test_a_blocked_loop_makes_no_duty_silent(team, eventually):
    begun: list[Duty] = []

    async def run(duty: Duty) -> None:
        begun.append(duty)
        while True:
            duty.turn()
            await asyncio.sleep(PATIENCE_S / 4)

    task = team.duties.start("duty", run)
    await eventually(lambda: begun)
    time.sleep(5 * PATIENCE_S)  # noqa: ASYNC251 - that is the fault
    turned_at_s = task.duty.turned_at_s
    await eventually(lambda: task.duty.turned_at_s > turned_at_s + 2 * PATIENCE_S)
    assert (len(begun), team.errors) == (1, [])


async def test_it_begins_again_ever_later_until_it_takes_a_turn(team, eventually):
    waits: list[float] = []
    begun: list[float] = []

    async def run(duty: Duty) -> None:
        waits.append(duty.again_s())
        begun.append(time.monotonic())
        if len(begun) == 4:
            duty.turn()

    team.duties.start("duty", run)
    await eventually(lambda: len(begun) == 6)
    assert len(team.errors) >= 5
    assert all(type(error) is DutyEnded for error in team.errors)
    assert all(wait_s <= PATIENCE_S / 2 for wait_s in waits)


async def test_one_that_never_takes_a_turn_can_be_given_up(team, eventually):
    given_up: list[BaseException] = []
    over = asyncio.Event()
    begun: list[Duty] = []

    async def run(duty: Duty) -> None:
        begun.append(duty)
        raise ZeroDivisionError(str(len(begun)))

    task = team.duties.start("duty", run, gives_up_after=3, on_given_up=given_up.append, on_over=over.set)
    await asyncio.wait_for(over.wait(), 30)
    assert [str(error) for error in given_up] == ["3"]
    assert (task.duty.state, len(begun)) == ("failed", 3)


async def test_after_close_nothing_begins_again(team, eventually):
    begun: list[Duty] = []
    team.duties.start("duty", breaking_once(lambda: None, begun))
    team.duties.start("other", breaking_once(asyncio.Event().wait, []))
    await eventually(lambda: team.errors)
    await team.duties.close()
    tasks = {task.get_name() for task in asyncio.all_tasks()}
    assert not tasks & {"beeq duty", "beeq other", "beeq watchdog"}
    assert team.duties.health() == ()


@pytest.mark.parametrize(("stall_interval_ms", "patience_s"), [(1, 0.3), (3000, 1.0), (10**9, 10.0)])
def test_the_patience_follows_the_stall_interval(stall_interval_ms, patience_s):
    assert patience_s_of(stall_interval_ms) == patience_s
