"""The scheduler: any event in any order, and what must hold after each; without a server."""

from __future__ import annotations

import inspect
import random
import types
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beeq.worker.scheduling import ahead, claims, places, repairs, scheduler
from beeq.worker.scheduling.actions import Failure
from tests.worker.scheduler_world import World

CONCURRENCIES = (1, 2, 3, 7)
STEPS = 80
#: Plays that find what few others do.
RARE = (1619, 1835, 10_600, 52_574, 70_935)


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
    "a handler ends with too much": (
        2,
        lambda world, n: world.end_handler(n, is_retried=False, is_refused=True),
    ),
    "the fleet's jobs grow many": (1, lambda world, n: setattr(world.redis, "is_long_active", n % 2 == 0)),
    "a key goes wrong, or right": (1, lambda world, n: setattr(world.redis, "refuses_retries", n % 2 == 0)),
    "refused outcomes are due": (5, lambda world, _n: world.end_later()),
    "records grow long": (1, lambda world, n: setattr(world.redis, "are_records_long", n % 2 == 0)),
    "stopped handlers end": (5, lambda world, _n: world.end_stopped_handlers()),
    "the worker gives a job up": (2, lambda world, n: world.give_up(n)),
    "the loop's turn ends": (20, lambda world, _n: world.end_loop_turn()),
    "the fetch brings a job": (10, lambda world, n: world.fetch_brings_job(has_record=n % 4 != 0)),
    "the fetch ends": (3, lambda world, _n: world.fetch_ends()),
    "the fetch fails": (1, lambda world, _n: world.fetch_fails()),
    "the awaited one is done": (20, lambda world, _n: world.end_awaited(is_executed=True, is_known=True)),
    "the awaited one fails": (2, lambda world, n: world.end_awaited(is_executed=n % 2 == 0, is_known=False)),
    "a heartbeat goes on": (10, lambda world, _n: world.beat_goes_on()),
    "time passes": (10, lambda world, n: world.time_passes(n)),
    "attempts are of another length": (5, lambda world, n: world.limit_ahead(n % 8)),
    "other workers come or go": (1, lambda world, n: world.workers_come_or_go(are_others=n % 3 > 0)),
    "the thread gives late jobs back": (4, lambda world, n: world.thread_gives_back(is_done=n % 3 > 0)),
    "another worker takes late jobs": (3, lambda world, _n: world.others_take_overdue()),
    "a job stalls": (3, lambda world, n: world.stall(n)),
    "a job is removed, and saved again": (2, lambda world, n: world.replace(n)),
    "another worker takes a job": (3, lambda world, _n: world.steal()),
    "the owner drains": (1, lambda world, _n: world.drain()),
    "the owner pauses": (3, lambda world, _n: world.pause(is_over=False)),
    "the pause is over": (2, lambda world, _n: world.pause(is_over=True)),
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


@pytest.mark.fast
@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(CONCURRENCIES),
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 23)), max_size=STEPS),
)
def test_everything_holds_whatever_happens_in_any_order(concurrency, plot):
    play(scheduler.Scheduler, concurrency, plot)


@pytest.mark.fast
@pytest.mark.parametrize("first_seed", range(0, 2000, 500))
def test_everything_holds_in_two_thousand_random_plays(first_seed):
    for seed in range(first_seed, first_seed + 500):
        play_random(scheduler.Scheduler, seed)


def broken(line: str, instead: str) -> Any:
    """Return a scheduler class that has this in place of that line, which may be that of a part of it."""
    made: dict[str, Any] = {}
    found = 0
    for original in (claims, ahead, repairs, places, scheduler):
        source = inspect.getsource(original)
        found += source.count(line)
        module = types.ModuleType(f"broken_{original.__name__}")
        exec(compile(source.replace(line, instead), module.__name__, "exec"), module.__dict__)
        vars(module).update((name, made[name]) for name in made.keys() & vars(module).keys())
        made |= {
            name: value
            for name, value in vars(module).items()
            if getattr(value, "__module__", "") == module.__name__
        }
    assert found == 1, "the scheduler has changed: choose another line"
    return made["Scheduler"]


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        pytest.param(
            "while self.calls_in_flight < most_calls and self._has_work()",
            "while self.calls_in_flight <= most_calls and self._has_work()",
            id="one call too many in flight",
        ),
        pytest.param(
            "outcomes = [] if is_started else self._outcomes.take(alone=fetched is None)",
            "outcomes = self._outcomes.take(alone=fetched is None)",
            id="an outcome is sent before its claim",
        ),
        pytest.param(
            "self.places.taken -= len(action.claims)",
            "pass",
            id="a place is not freed after a refused early start",
        ),
        pytest.param(
            "elif not self.calls_in_flight and self._phase",
            "elif self._phase",
            id="a fetch starts while a call asks for jobs",
        ),
        pytest.param(
            "if self._link is states.RECOVERING and not self._repairs.strays:",
            "if self._link is states.RECOVERING:",
            id="a call is made before strays were given back",
        ),
        pytest.param(
            "self._fetched = call.fetched or self._fetched", "pass", id="a fetched job is forgotten"
        ),
        pytest.param(
            "is_other = self._outcomes.failed(call.outcomes, call.free + call.ahead, failure, error)",
            "is_other = True",
            id="an outcome is forgotten",
        ),
        pytest.param(
            "self.places.taken -= len(recorded) + len(lost)",
            "self.places.taken -= len(sent)",
            id="the place of an outcome that was not looked at is freed",
        ),
        pytest.param(
            "later = (actions.RetryLater(),) if self._outcomes.wants_later() else ()",
            "later = ()",
            id="a refused outcome is not sent again",
        ),
        pytest.param("self.strays = action.strays + self.strays", "pass", id="a lost claim is forgotten"),
        pytest.param("if not goes_on:", "if False:", id="a refused job runs on"),
        pytest.param(
            "self.claimed.hold_early(raw_id, fetched.claim)",
            "self.claimed[raw_id] = fetched.claim",
            id="a job whose claim is on its way counts as lost",
        ),
        pytest.param(
            "if self.claimed.release(raw_id, claim)]",
            "if self.claimed.holds(raw_id, claim)]",
            id="somebody beats for a lost job",
        ),
        pytest.param("if raw_id in self:", "if False:", id="a job runs on beside its next attempt here"),
        pytest.param("*stop, start,", "start,", id="a job runs on beside an early start of its id"),
        pytest.param(
            "if self._fetched is not None and self._fetched.claim == claim:",
            "if False:",
            id="a job that was given up is claimed as if it ran",
        ),
        pytest.param(
            "return self._phase is TAKING and self._fetch is not WAITING",
            "return self._phase in (TAKING, PAUSED) and self._fetch is not WAITING",
            id="a paused worker asks for jobs",
        ),
        pytest.param(
            "and (self._phase is PAUSED or not self._may_fetch)",
            "and not self._may_fetch",
            id="a paused worker fetches on",
        ),
        pytest.param(
            "self.places.reserve(1)",
            "self.places.reserve(0)",
            id="the place of a job that may not have been given back is given twice",
        ),
        pytest.param("if job[1] < now_s:", "if False:", id="a job claimed ahead begins too late"),
        pytest.param(
            "due.append(actions.NoteBegins(noted))",
            "pass",
            id="a job claimed ahead begins, and Redis may give it to another worker",
        ),
        pytest.param(
            "beyond = 0 if self.redelivered else self.ahead_limit",
            "beyond = self.ahead_limit",
            id="jobs are claimed ahead behind one that was handed out before",
        ),
        pytest.param("self.popleft()", "self.pop()", id="the newest claimed ahead begins first"),
        pytest.param(
            "        if self._link is READY and self._is_connected():\n            begun",
            "        if True:\n            begun",
            id="a job claimed ahead begins without a connection",
        ),
        pytest.param(
            "return self.is_ready and self._phase is TAKING and self._may_fetch",
            "return self.is_ready and self._may_fetch",
            id="a paused worker says that it takes jobs",
        ),
        pytest.param("may_claim_ahead=self._may_fetch", "may_claim_ahead=True", id="a burst claims ahead"),
        pytest.param(
            "free = self._clock(), self._concurrency - self.running",
            "free = self._clock(), 1000",
            id="jobs claimed ahead begin without a free place",
        ),
        pytest.param(
            "call.asked = call.free + call.ahead + to_claim",
            "call.asked = call.free + call.ahead",
            id="the place of a fetched job is given twice",
        ),
    ],
)
def test_random_plays_find_a_scheduler_that_is_broken(line, instead):
    scheduler_class = broken(line, instead)

    def hunt() -> None:
        for seed in (*RARE, *range(20_000)):
            play_random(scheduler_class, seed)

    with pytest.raises(AssertionError):
        hunt()
