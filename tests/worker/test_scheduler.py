"""The scheduler: any event in any order, and what must hold after each; without a server."""

from __future__ import annotations

import inspect
import random
import types
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beeq.worker import scheduler
from beeq.worker.actions import Failure
from tests.worker.scheduler_world import World

pytestmark = pytest.mark.fast

CONCURRENCIES = (1, 2, 3, 7)
STEPS = 80


def jobs_come(world: World, n: int) -> None:
    for _ in range(1 + n % 4):
        world.add_job()


#: What may happen, and how often beside the others: what is rare in life is rare here, or no play gets far.
EVENTS: dict[str, tuple[int, Any]] = {
    "jobs come": (10, jobs_come),
    "Redis executes a call": (10, lambda world, _n: world.execute()),
    "Redis replies": (20, lambda world, _n: world.reply()),
    "Redis refuses a call": (2, lambda world, _n: world.refuse(Failure.REFUSED)),
    "Redis lacks the script": (1, lambda world, _n: world.refuse(Failure.SCRIPT_MISSING)),
    "the connection breaks": (2, lambda world, _n: world.break_connection()),
    "a handler ends": (20, lambda world, n: world.end_handler(n, is_retried=n % 3 == 0)),
    "stopped handlers end": (5, lambda world, _n: world.end_stopped_handlers()),
    "the worker gives a job up": (2, lambda world, n: world.give_up(n)),
    "the loop's turn ends": (20, lambda world, _n: world.end_loop_turn()),
    "the fetch brings a job": (10, lambda world, n: world.fetch_brings_job(has_record=n % 4 != 0)),
    "the fetch ends": (3, lambda world, _n: world.fetch_ends()),
    "the fetch fails": (1, lambda world, _n: world.fetch_fails()),
    "the awaited one is done": (20, lambda world, _n: world.end_awaited(is_executed=True, is_known=True)),
    "the awaited one fails": (2, lambda world, n: world.end_awaited(is_executed=n % 2 == 0, is_known=False)),
    "a job stalls": (3, lambda world, n: world.stall(n)),
    "another worker takes a job": (3, lambda world, _n: world.steal()),
    "the owner drains": (1, lambda world, _n: world.drain()),
    "the owner bursts": (1, lambda world, _n: world.burst()),
    "the owner looks": (2, lambda world, _n: world.look()),
}
NAMES = [name for name, (weight, _) in EVENTS.items() for _ in range(weight)]


def play(scheduler_class: Any, concurrency: int, plot: list[tuple[str, int]]) -> None:
    """Let these events happen, then let everything end; look at all that must hold after each."""
    world = World(scheduler_class, concurrency=concurrency)
    world.begin()
    for name, n in plot:
        EVENTS[name][1](world, n)
        world.check()
    world.finish()


def play_random(scheduler_class: Any, seed: int) -> None:
    chance = random.Random(seed)
    plot = [(chance.choice(NAMES), chance.randrange(24)) for _ in range(STEPS)]
    play(scheduler_class, CONCURRENCIES[seed % len(CONCURRENCIES)], plot)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(CONCURRENCIES),
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 23)), max_size=STEPS),
)
def test_everything_holds_whatever_happens_in_any_order(concurrency, plot):
    play(scheduler.Scheduler, concurrency, plot)


@pytest.mark.parametrize("first_seed", range(0, 2000, 500))
def test_everything_holds_in_two_thousand_random_plays(first_seed):
    for seed in range(first_seed, first_seed + 500):
        play_random(scheduler.Scheduler, seed)


def broken(line: str, instead: str) -> Any:
    """Return a scheduler class that has this in place of that line."""
    source = inspect.getsource(scheduler)
    assert source.count(line) == 1, "the scheduler has changed: choose another line"
    module = types.ModuleType("broken_scheduler")
    exec(compile(source.replace(line, instead), "broken_scheduler", "exec"), module.__dict__)
    return module.Scheduler


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        pytest.param(
            "and self.calls_in_flight < MAX_CALLS and self._has_work()",
            "and self.calls_in_flight <= MAX_CALLS and self._has_work()",
            id="one call too many in flight",
        ),
        pytest.param("count = 0 if is_started else", "count =", id="an outcome is sent before its claim"),
        pytest.param(
            "self.places_taken -= len(action.claims)",
            "pass",
            id="a place is not freed after a refused early start",
        ),
        pytest.param(
            "elif not self.calls_in_flight:", "else:", id="a fetch starts while a call asks for jobs"
        ),
        pytest.param(
            "if self._link is RECOVERING and not self._strays:",
            "if self._link is RECOVERING:",
            id="a call is made before strays were given back",
        ),
        pytest.param(
            "self._fetched = call.fetched or self._fetched", "pass", id="a fetched job is forgotten"
        ),
        pytest.param("self._outcomes = call.outcomes + self._outcomes", "pass", id="an outcome is forgotten"),
        pytest.param("self._strays = action.strays + self._strays", "pass", id="a lost claim is forgotten"),
        pytest.param("if not goes_on:", "if False:", id="a refused job runs on"),
        pytest.param(
            "if self._fetched is not None and self._fetched.claim == claim:",
            "if False:",
            id="a job that was given up is claimed as if it ran",
        ),
    ],
)
def test_random_plays_find_a_scheduler_that_is_broken(line, instead):
    scheduler_class = broken(line, instead)

    def hunt() -> None:
        for seed in range(20_000):
            play_random(scheduler_class, seed)

    with pytest.raises(AssertionError):
        hunt()
