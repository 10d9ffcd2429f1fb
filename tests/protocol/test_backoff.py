"""bee-queue's three strategies: what they answer and what they leave in the record."""

from __future__ import annotations

import math
from typing import Any

import pytest

from beeq.protocol.backoff import MAX_DELAY_MS, builtin_strategies
from tests.support.samples import make_job

pytestmark = pytest.mark.fast

TABLE: list[tuple[str, Any, int, Any]] = [
    # strategy, stored delay, delay to wait, delay stored afterwards
    ("immediate", None, 0, None),
    ("immediate", 500, 0, 500),
    ("immediate", "odd", 0, "odd"),
    ("fixed", 1, 1, 1),
    ("fixed", 5000, 5000, 5000),
    ("fixed", 0, 0, 0),
    ("fixed", MAX_DELAY_MS, MAX_DELAY_MS, MAX_DELAY_MS),
    ("fixed", MAX_DELAY_MS + 1, MAX_DELAY_MS, MAX_DELAY_MS + 1),
    ("fixed", 10**400, MAX_DELAY_MS, 10**400),
    ("fixed", 1.5, 2, 1.5),
    ("exponential", 1.5, 2, 3),
    ("exponential", 30, 30, 60),
    ("exponential", 60, 60, 120),
    ("exponential", 1.0, 1, 2),
    ("exponential", 0, 0, 0),
    ("exponential", MAX_DELAY_MS // 2 + 1, MAX_DELAY_MS // 2 + 1, MAX_DELAY_MS),
    ("exponential", MAX_DELAY_MS, MAX_DELAY_MS, MAX_DELAY_MS),
    ("exponential", 10**15, MAX_DELAY_MS, MAX_DELAY_MS),
]


@pytest.mark.parametrize(("strategy", "stored", "delay_ms", "stored_after"), TABLE)
def test_each_strategy_waits_and_stores_as_bee_queue_does(
    strategy: str, stored: Any, delay_ms: int, stored_after: Any
) -> None:
    backoff = {"strategy": strategy} | ({} if stored is None else {"delay": stored})
    job = make_job({"backoff": dict(backoff)})
    assert builtin_strategies()[strategy](job) == delay_ms
    assert job.options["backoff"] == backoff | ({} if stored_after is None else {"delay": stored_after})


@pytest.mark.parametrize("strategy", ["fixed", "exponential"])
def test_a_delay_beyond_all_floats_is_the_longest(strategy: str) -> None:
    job = make_job()
    job.options["backoff"] = {"strategy": strategy, "delay": math.inf}  # as 1e999 is read
    assert builtin_strategies()[strategy](job) == MAX_DELAY_MS


@pytest.mark.parametrize("strategy", ["fixed", "exponential"])
@pytest.mark.parametrize("stored", [None, "100", True, [], {}, -1, -0.5], ids=repr)
def test_a_delay_that_is_none_fails_the_job_and_is_left_alone(strategy: str, stored: Any) -> None:
    job = make_job({"backoff": {"strategy": strategy, "delay": stored}})
    assert builtin_strategies()[strategy](job) < 0
    assert job.options["backoff"] == {"strategy": strategy, "delay": stored}


def test_an_exponential_job_waits_twice_as_long_each_time() -> None:
    job = make_job({"backoff": {"strategy": "exponential", "delay": 60, "kept": [1]}})
    waits = [builtin_strategies()["exponential"](job) for _ in range(4)]
    assert waits == [60, 120, 240, 480]
    assert job.options["backoff"] == {"strategy": "exponential", "delay": 960, "kept": [1]}


def test_no_delay_ever_exceeds_what_javascripts_timers_hold() -> None:
    job = make_job({"backoff": {"strategy": "exponential", "delay": 1}})
    waits = [builtin_strategies()["exponential"](job) for _ in range(100)]
    assert max(waits) == waits[-1] == job.options["backoff"]["delay"] == 2**31 - 1
    assert math.log2(waits[30]) == 30


def test_each_queue_has_a_dict_of_its_own_to_extend() -> None:
    mine = builtin_strategies()
    mine["sometimes"] = lambda _job: 5
    assert list(builtin_strategies()) == ["immediate", "fixed", "exponential"]
