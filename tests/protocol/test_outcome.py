"""How an attempt ends: every decision, with the record, the message and the memory it leaves (protocol 4.6, 7)."""

from __future__ import annotations

import json
import math
from datetime import timedelta
from typing import Any

import pytest

from beeq import Discard, Job, JobStalled, JobTimedOut, JobUnreadable, Retry
from beeq.protocol.backoff import MAX_DELAY_MS, builtin_strategies
from beeq.protocol.codec import decode_record
from beeq.protocol.outcome import Outcome, fail, succeed
from tests.support.samples import NOW_MS, make_job, nested, raised

pytestmark = pytest.mark.fast

STRATEGIES = builtin_strategies()


def record_of(outcome: Outcome) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(outcome.record)
    return record


def failed_for_good(outcome: Outcome, *, message: str) -> None:
    """Check everything that a final failure is made of."""
    assert (outcome.status, outcome.delay_ms) == ("failed", 0)
    assert (
        outcome.message
        == json.dumps({"id": "7", "event": "failed", "data": message}, separators=(",", ":")).encode()
    )
    assert outcome.keep == f"{NOW_MS}:f{json.dumps(message)}".encode()
    record = record_of(outcome)
    assert record["status"] == outcome.job.status == "failed"
    assert record["options"]["stacktraces"][0].splitlines()[0].endswith(message)


class TestSuccess:
    @pytest.mark.parametrize(
        ("result", "message", "keep"),
        [
            (None, b'{"id":"7","event":"succeeded"}', b""),
            ({"x": 1}, b'{"id":"7","event":"succeeded","data":{"x":1}}', b'1795488864455:s{"x":1}'),
            (0, b'{"id":"7","event":"succeeded","data":0}', b"1795488864455:s0"),
            ("", b'{"id":"7","event":"succeeded","data":""}', b'1795488864455:s""'),
            (False, b'{"id":"7","event":"succeeded","data":false}', b"1795488864455:sfalse"),
            (2**70, b'{"id":"7","event":"succeeded","data":1180591620717411303424}', b"1795488864455:s1180591620717411303424"),
            (math.nan, b'{"id":"7","event":"succeeded","data":null}', b"1795488864455:snull"),
            ("\ud800", rb'{"id":"7","event":"succeeded","data":"\ud800"}', rb'1795488864455:s"\ud800"'),
        ],
        ids=ascii,
    )  # fmt: skip
    def test_a_result_is_published_and_kept(self, result: Any, message: bytes, keep: bytes) -> None:
        outcome = succeed(make_job(), result)
        assert (outcome.status, outcome.message, outcome.keep) == ("succeeded", message, keep)
        assert (outcome.result is result, outcome.error, outcome.delay_ms) == (True, None, 0)
        assert outcome.record == (
            b'{"data":{"a":1},"options":{"timestamp":1795488864455,"stacktraces":[]},"status":"succeeded","progress":0}'
        )

    def test_what_the_handler_changed_is_written(self) -> None:
        job = make_job({"own": [1]}, data={"a": 1})
        job.data["b"], job.progress = 2, 50
        job.options["retries"] = 0
        assert record_of(succeed(job, None)) == {
            "data": {"a": 1, "b": 2},
            "options": {"timestamp": NOW_MS, "stacktraces": [], "own": [1], "retries": 0},
            "status": "succeeded",
            "progress": 50,
        }

    def test_an_id_of_any_text_is_written_as_json(self) -> None:
        outcome = succeed(make_job(job_id='a"b\\é'), 1)
        assert json.loads(outcome.message) == {"id": 'a"b\\é', "event": "succeeded", "data": 1}

    @pytest.mark.parametrize(
        "result", [object(), b"bytes", {1, 2}, {(1,): 1}, nested(5000), 10**5000], ids=lambda result: type(result).__name__
    )  # fmt: skip
    def test_a_result_that_cannot_be_written_fails_the_job_for_good(self, result: Any) -> None:
        """bee-queue writes nothing and runs the job again and again."""
        job = make_job({"retries": 5})
        outcome = succeed(job, result)
        assert isinstance(outcome.error, TypeError)
        assert str(outcome.error).startswith("cannot be written as JSON: ")
        failed_for_good(outcome, message=str(outcome.error))
        assert outcome.result is None
        assert record_of(outcome)["options"]["retries"] == 5

    def test_a_circular_result_is_named(self) -> None:
        circle: list[Any] = []
        circle.append(circle)
        assert "circular" in str(succeed(make_job(), circle).error)

    @pytest.mark.parametrize("where", ["data", "options", "progress"])
    def test_an_unwritable_record_fails_the_job_as_claimed(self, where: str) -> None:
        """In bee-queue it runs again at every stall check, for ever."""
        job = make_job({"own": [1], "retries": 5}, data={"a": 1})
        if where == "progress":
            job.progress = object()
        else:
            getattr(job, where)["odd"] = object()
        outcome = succeed(job, "result")
        failed_for_good(outcome, message=str(outcome.error))
        written, claimed = record_of(outcome), json.loads(job.claimed_record)
        assert written["data"] == claimed["data"]
        assert written["progress"] == claimed["progress"]
        assert len(written["options"].pop("stacktraces")) == 1
        assert claimed["options"].pop("stacktraces") == []
        assert written["options"] == claimed["options"]


@pytest.mark.parametrize("timestamp", ["text", [1], {"a": 1}, True, 1.5, 1e300], ids=repr)
def test_an_odd_creation_time_harms_no_outcome(timestamp: Any) -> None:
    for outcome in (
        succeed(make_job({"timestamp": timestamp}), 1),
        fail(make_job({"timestamp": timestamp}), ValueError("x"), STRATEGIES),
    ):
        assert outcome.keep.partition(b":")[0].isdigit()
        assert record_of(outcome)["options"]["timestamp"] == timestamp


def test_a_creation_time_beyond_all_floats_harms_no_outcome() -> None:
    assert succeed(make_job({"timestamp": 10**400}), 1).status == "succeeded"
    assert fail(make_job({"timestamp": 10**400}), ValueError("x"), STRATEGIES).status == "failed"


DECISIONS: list[tuple[dict[str, Any], str, int, dict[str, Any]]] = [
    # options · status · delay · options afterwards, where they change
    ({}, "failed", 0, {}),
    ({"retries": 0}, "failed", 0, {}),
    ({"retries": None}, "failed", 0, {}),
    ({"retries": -1}, "failed", 0, {}),
    ({"retries": "odd"}, "failed", 0, {}),
    ({"retries": 1}, "retrying", 0, {"retries": 0}),
    ({"retries": 3, "backoff": None}, "retrying", 0, {"retries": 2}),
    ({"retries": 3, "backoff": {"strategy": "immediate"}}, "retrying", 0, {"retries": 2}),
    ({"retries": 3, "backoff": {"strategy": "immediate", "delay": 99}}, "retrying", 0, {"retries": 2}),
    ({"retries": 3, "backoff": {"strategy": "fixed", "delay": 100}}, "retrying", 100, {"retries": 2}),
    ({"retries": 3, "backoff": {"strategy": "exponential", "delay": 100}}, "retrying", 100,
     {"retries": 2, "backoff": {"strategy": "exponential", "delay": 200}}),
    ({"retries": 1, "backoff": {"strategy": "fixed", "delay": 2**40}}, "retrying", MAX_DELAY_MS, {"retries": 0}),
    # A worker that does not know the strategy fails the job, whatever retries are left.
    ({"retries": 3, "backoff": {"strategy": "unheard of", "delay": 1}}, "failed", 0, {}),
    ({"retries": 3, "backoff": {"delay": 1}}, "failed", 0, {}),
    ({"retries": 3, "backoff": {"strategy": None}}, "failed", 0, {}),
    ({"retries": 3, "backoff": {"strategy": "fixed"}}, "failed", 0, {}),
    ({"retries": 3, "backoff": {"strategy": "fixed", "delay": -5}}, "failed", 0, {}),
    ({"retries": 3, "backoff": {"strategy": "fixed", "delay": "5"}}, "failed", 0, {}),
    # Failing for good asks no strategy: the stored delay stays.
    ({"retries": 0, "backoff": {"strategy": "exponential", "delay": 100}}, "failed", 0, {}),
]  # fmt: skip


@pytest.mark.parametrize(("options", "status", "delay_ms", "changed"), DECISIONS, ids=range(len(DECISIONS)))
def test_an_error_is_retried_or_final_as_in_bee_queue(
    options: dict[str, Any], status: str, delay_ms: int, changed: dict[str, Any]
) -> None:
    job = make_job({**options, "own": {"a": 1}})
    error = ValueError("no")
    outcome = fail(job, error, STRATEGIES)
    assert (outcome.status, outcome.delay_ms, outcome.error) == (status, delay_ms, error)
    assert outcome.message == b'{"id":"7","event":"%b","data":"no"}' % status.encode()
    assert outcome.keep == (b'1795488864455:f"no"' if status == "failed" else b"")
    record = record_of(outcome)
    assert record["status"] == job.status == status
    assert record["options"].pop("stacktraces") == ["ValueError: no"]
    assert record["options"] == {"timestamp": NOW_MS, **options, "own": {"a": 1}, **changed}


def test_a_strategy_sees_the_job_before_its_retries_count_down() -> None:
    seen = []

    def mine(job: Job) -> int:
        seen.append((job.id, job.options["retries"], job.status, list(job.options["stacktraces"])))
        job.options["seen"] = True
        return 5

    job = make_job({"retries": 2, "backoff": {"strategy": "mine", "delay": 1}})
    outcome = fail(job, ValueError("no"), {"mine": mine})
    assert seen == [("7", 2, "created", [])]
    assert (outcome.status, outcome.delay_ms) == ("retrying", 5)
    assert record_of(outcome)["options"]["seen"] is True


@pytest.mark.parametrize(
    ("answer", "delay_ms"), [(0, 0), (1, 1), (0.25, 1), (1.5, 2), (2**40, MAX_DELAY_MS), (True, 1)], ids=repr
)
def test_what_a_strategy_answers_is_waited(answer: Any, delay_ms: int) -> None:
    job = make_job({"retries": 1, "backoff": {"strategy": "mine"}})
    outcome = fail(job, ValueError("no"), {"mine": lambda _job: answer})
    assert (outcome.status, outcome.delay_ms) == ("retrying", delay_ms)


@pytest.mark.parametrize("answer", [-1, -(2**70), -0.5, math.nan, -math.inf], ids=repr)
def test_a_negative_answer_fails_the_job_with_the_handlers_error(answer: Any) -> None:
    job = make_job({"retries": 3, "backoff": {"strategy": "mine"}})
    outcome = fail(job, ValueError("no"), {"mine": lambda _job: answer})
    failed_for_good(outcome, message="no")
    assert job.options["retries"] == 3


@pytest.mark.parametrize("answer", [None, "5", [], object(), math.inf], ids=lambda answer: repr(answer)[:6])
def test_a_senseless_answer_fails_the_job_with_its_own_error(answer: Any) -> None:
    job = make_job({"retries": 3, "backoff": {"strategy": "mine"}})
    cause = ValueError("no")
    outcome = fail(job, cause, {"mine": lambda _job: answer})
    assert outcome.error is not None
    assert outcome.error.__context__ is cause
    failed_for_good(outcome, message=str(outcome.error))


def test_a_strategy_that_raises_fails_the_job_with_both_errors() -> None:
    def broken(_job: Job) -> int:
        raise ZeroDivisionError("in the strategy")

    job = make_job({"retries": 3, "backoff": {"strategy": "mine"}})
    outcome = fail(job, raised(ValueError("in the handler")), {"mine": broken})
    failed_for_good(outcome, message="in the strategy")
    assert "in the handler" in record_of(outcome)["options"]["stacktraces"][0]
    assert job.options["retries"] == 3


@pytest.mark.parametrize(
    ("after", "delay_ms"),
    [(0, 0), (1, 1), (5000, 5000), (1.5, 2), (-5, 0), (2**40, MAX_DELAY_MS), (timedelta(seconds=2), 2000),
     (timedelta(microseconds=1), 1), (timedelta(seconds=-2), 0)],
    ids=repr,
)  # fmt: skip
def test_a_handler_may_choose_its_own_delay(after: Any, delay_ms: int) -> None:
    backoff = {"strategy": "exponential", "delay": 100}
    job = make_job({"retries": 2, "backoff": dict(backoff)})
    outcome = fail(job, Retry(after=after, reason="busy"), STRATEGIES)
    assert (outcome.status, outcome.delay_ms) == ("retrying", delay_ms)
    assert outcome.message == b'{"id":"7","event":"retrying","data":"busy"}'
    options = record_of(outcome)["options"]
    assert (options["retries"], options["backoff"]) == (1, backoff)
    assert options["stacktraces"] == ["Retry: busy"]


def test_a_chosen_delay_needs_no_strategy_that_is_known() -> None:
    job = make_job({"retries": 1, "backoff": {"strategy": "unheard of"}})
    assert fail(job, Retry(after=5), STRATEGIES).status == "retrying"


def test_a_handler_may_leave_the_delay_to_the_backoff() -> None:
    job = make_job({"retries": 1, "backoff": {"strategy": "fixed", "delay": 70}})
    outcome = fail(job, Retry(), STRATEGIES)
    assert (outcome.status, outcome.delay_ms) == ("retrying", 70)
    assert json.loads(outcome.message)["data"] == "the handler asked for a retry"


@pytest.mark.parametrize("after", [None, 5, timedelta(seconds=1)], ids=repr)
def test_a_retry_without_retries_left_is_a_failure(after: Any) -> None:
    failed_for_good(fail(make_job(), Retry(after=after, reason="busy"), STRATEGIES), message="busy")


@pytest.mark.parametrize("after", [math.inf, 10**400, 2**31], ids=lambda after: repr(after)[:6])
def test_a_retry_after_too_long_comes_after_the_longest_delay(after: Any) -> None:
    outcome = fail(make_job({"retries": 3}), Retry(after=after), STRATEGIES)
    assert (outcome.status, outcome.delay_ms) == ("retrying", 2**31 - 1)


@pytest.mark.parametrize("after", ["soon", "30", math.nan, object()], ids=lambda after: repr(after)[:6])
def test_a_bad_delay_by_a_handler_fails_the_job_with_that_error(after: Any) -> None:
    outcome = fail(make_job({"retries": 3}), Retry(after=after, reason="busy"), STRATEGIES)
    failed_for_good(outcome, message=str(outcome.error))
    assert not isinstance(outcome.error, Retry)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Discard("spam"), "spam"),
        (Discard(), "the handler discarded the job"),
        (JobStalled("7", 4), "Job 7 stalled more than allowed (3 times)"),
    ],
)
def test_some_errors_are_final_whatever_retries_are_left(error: Exception, message: str) -> None:
    job = make_job({"retries": 5, "backoff": {"strategy": "exponential", "delay": 100}})
    outcome = fail(job, error, STRATEGIES)
    failed_for_good(outcome, message=message)
    assert job.options["retries"] == 5
    assert job.options["backoff"]["delay"] == 100


def test_an_unreadable_record_is_left_as_it_is() -> None:
    job = make_job({"retries": 5})
    error = JobUnreadable("7", b"NaN", "not JSON")
    outcome = fail(job, error, STRATEGIES)
    assert (outcome.status, outcome.record, outcome.keep) == ("failed", b"", b"")
    assert outcome.message == b'{"id":"7","event":"failed","data":"Job 7 has an unreadable record: not JSON"}'
    assert outcome.error is error


@pytest.mark.parametrize("retries", [0, 3])
def test_a_failure_with_an_unwritable_record_keeps_the_claimed(
    retries: int,
) -> None:
    job = make_job({"retries": retries, "backoff": {"strategy": "fixed", "delay": 500}}, data={"a": 1})
    job.data["odd"] = object()
    outcome = fail(job, ValueError("no"), STRATEGIES)
    assert outcome.status == "failed"
    assert outcome.message == b'{"id":"7","event":"failed","data":"no"}'
    assert outcome.keep == b'1795488864455:f"no"'
    record = record_of(outcome)
    assert (record["data"], record["status"]) == ({"a": 1}, "failed")
    assert record["options"]["retries"] == retries
    assert record["options"]["stacktraces"] == ["ValueError: no"]
    # Listeners are given the job beside the verdict; the two must agree.
    assert job.status == "failed"


@pytest.mark.parametrize("is_success", [True, False], ids=["succeeded", "failed"])
def test_a_readable_but_unwritable_record_keeps_its_text(is_success: bool) -> None:
    """A Node peer may nest deeper than Python writes; the outcome must not be lost over that."""
    raw = (
        b'{"data":'
        + b"[" * 900
        + b"]" * 900
        + b',"options":{"timestamp":1,"stacktraces":[]},"status":"created","progress":0}'
    )
    job = make_job()
    read = decode_record("7", raw, now_ms=NOW_MS)
    job.data, job.options, job.claimed_record = read.data, read.options, raw
    outcome = succeed(job, 1) if is_success else fail(job, ValueError("no"), STRATEGIES)
    if outcome.record:
        assert json.loads(outcome.record)["status"] == outcome.status
    else:
        assert outcome.status == "failed"


def test_a_timeout_counts_as_a_failure_in_nodes_own_words() -> None:
    job = make_job({"retries": 1})
    outcome = fail(job, raised(JobTimedOut("7", 10)), STRATEGIES)
    assert outcome.status == "retrying"
    assert outcome.message == b'{"id":"7","event":"retrying","data":"Job 7 timed out (10 ms)"}'
    assert job.options["stacktraces"] == ["Error: Job 7 timed out (10 ms)"]
