"""What a record keeps of its errors: traces that are bounded, newest first, and never lose the outcome."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beeq import Discard, Retry
from beeq.protocol.backoff import builtin_strategies
from beeq.protocol.codec import decode_record
from beeq.protocol.outcome import MAX_TRACE_BYTES, MAX_TRACES, fail, message_of, succeed, trace_of
from tests.support.samples import NOW_MS, json_values, make_job, raised

pytestmark = pytest.mark.fast

STRATEGIES = builtin_strategies()


class SilentError(Exception):
    """Says nothing of itself."""

    def __str__(self) -> str:
        return ""


class BrokenError(Exception):
    """Cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("broken __str__")

    def __repr__(self) -> str:
        raise RuntimeError("broken __repr__")


class OddError(Exception):
    """Returns something other than a text."""

    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307 - that is what is odd


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no"), "no"),
        (ValueError(), "ValueError"),
        (ValueError(""), "ValueError"),
        (ValueError("a", 1), "('a', 1)"),
        (KeyError("k"), "'k'"),
        (SilentError(), "SilentError"),
        (BrokenError(), "BrokenError"),
        (OddError(), "OddError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (ExceptionGroup("several", [ValueError("a")]), "several (1 sub-exception)"),
        (ValueError("é\n\ud800"), "é\n\ud800"),
    ],
    ids=lambda side: type(side).__name__,
)
def test_the_message_is_the_errors_text_or_its_types_name(error: BaseException, message: str) -> None:
    assert message_of(error) == message
    assert trace_of(error).startswith(f"{type(error).__name__}: {message}")


@pytest.mark.parametrize(
    "error", [BrokenError(), OddError(), SilentError()], ids=lambda error: type(error).__name__
)
def test_an_error_that_cannot_be_printed_loses_no_outcome(error: Exception) -> None:
    outcome = fail(make_job(), raised(error), STRATEGIES)
    name = type(error).__name__
    assert json.loads(outcome.message)["data"] == name
    assert json.loads(outcome.record)["options"]["stacktraces"][0].splitlines()[0] == f"{name}: {name}"


def test_a_trace_is_the_error_then_pythons_traceback() -> None:
    trace = trace_of(raised(ValueError("no")))
    first, *rest = trace.splitlines()
    assert first == "ValueError: no"
    assert rest[0] == "Traceback (most recent call last):"
    assert "in handler" in trace
    assert rest[-1] == "ValueError: no"


def test_an_error_that_was_never_raised_has_a_trace_of_one_line() -> None:
    assert trace_of(ValueError("no")) == "ValueError: no"


@pytest.mark.parametrize("letter", ["x", "é", "😀", "\ud800"], ids=ascii)
@pytest.mark.parametrize("extra", [-50, 0, 1, 2, 3, 1_000_000])
def test_a_long_message_keeps_both_ends_within_the_limit(letter: str, extra: int) -> None:
    text = "begin" + letter * (MAX_TRACE_BYTES + extra) + "end"
    for cut in (message_of(ValueError(text)), trace_of(ValueError(text)), trace_of(raised(ValueError(text)))):
        raw = cut.encode("utf-8", "surrogatepass")
        assert len(raw) <= MAX_TRACE_BYTES
        assert "begin" in cut[:30]
        assert cut.endswith(("end", "end\n"))
    assert (
        "\n…\n" in message_of(ValueError(text))
        or len(text.encode("utf-8", "surrogatepass")) <= MAX_TRACE_BYTES
    )


def test_a_message_at_the_limit_is_not_cut() -> None:
    text = "x" * MAX_TRACE_BYTES
    assert message_of(ValueError(text)) == text
    assert message_of(ValueError(text + "x")) != text + "x"


def test_what_a_long_error_costs_in_redis_is_bounded() -> None:
    outcome = fail(make_job(), raised(ValueError("x" * 10_000_000)), STRATEGIES)
    assert len(outcome.record) < 2 * MAX_TRACE_BYTES
    assert len(outcome.message) < 2 * MAX_TRACE_BYTES
    assert len(outcome.keep) < 2 * MAX_TRACE_BYTES


def test_the_newest_trace_is_first_and_the_oldest_of_many_goes() -> None:
    job = make_job({"retries": 1000})
    for attempt in range(MAX_TRACES + 5):
        fail(job, ValueError(str(attempt)), STRATEGIES)
    traces = job.options["stacktraces"]
    assert len(traces) == MAX_TRACES == 100
    assert (traces[0], traces[-1]) == ("ValueError: 104", "ValueError: 5")


@pytest.mark.parametrize("traces", [None, "text", {"0": "x"}, 5, True], ids=repr)
def test_traces_that_are_no_list_become_one(traces: Any) -> None:
    """bee-queue throws; the handler may have put anything there."""
    job = make_job()
    job.options["stacktraces"] = traces
    fail(job, ValueError("no"), STRATEGIES)
    assert job.options["stacktraces"] == ["ValueError: no"]


def test_older_traces_of_a_node_worker_stay_whatever_they_are() -> None:
    job = make_job({"stacktraces": [True, {"a": 1}, "Error: x\n    at y"]})
    fail(job, ValueError("no"), STRATEGIES)
    assert job.options["stacktraces"] == ["ValueError: no", True, {"a": 1}, "Error: x\n    at y"]


ENDS = st.one_of(
    st.builds(lambda value: ("return", value), json_values() | st.just(object())),
    st.builds(lambda text: ("raise", ValueError(text)), st.text()),
    st.builds(lambda after: ("raise", Retry(after=after)), st.none() | st.integers() | st.floats()),
    st.just(("raise", Discard("no"))),
    st.just(("raise", BrokenError())),
)
BACKOFFS = st.none() | st.dictionaries(
    st.sampled_from(["strategy", "delay", "own"]),
    st.sampled_from(["fixed", "exponential", "odd"]) | json_values(),
)


@settings(deadline=None, max_examples=100)
@given(
    data=json_values(),
    own=st.dictionaries(st.text(min_size=1).map(lambda name: f"own {name}"), json_values(is_lone_surrogate_allowed=True), max_size=3),
    retries=st.none() | st.integers(-2, 3) | json_values(),
    backoff=BACKOFFS,
    end=ENDS,
)  # fmt: skip
def test_every_outcome_is_a_decodable_record_with_all_options(
    data: Any, own: dict[str, Any], retries: Any, backoff: Any, end: tuple[str, Any]
) -> None:
    job = make_job({**own, "retries": retries, "backoff": backoff}, data=data)
    before = json.loads(job.claimed_record)
    outcome = succeed(job, end[1]) if end[0] == "return" else fail(job, end[1], STRATEGIES)
    record = decode_record("7", outcome.record, now_ms=0)
    assert record.status == outcome.status == job.status
    assert record.status in ("succeeded", "retrying", "failed")
    assert list(json.loads(outcome.record)) == ["data", "options", "status", "progress"]
    assert {name: json.loads(outcome.record)["options"][name] for name in own} == {
        name: before["options"][name] for name in own
    }
    assert record.options["timestamp"] == NOW_MS
    assert len(record.options["stacktraces"]) == (0 if record.status == "succeeded" else 1)
    event = json.loads(outcome.message)
    assert (event["id"], event["event"]) == ("7", outcome.status)
    assert outcome.delay_ms >= 0
    assert (outcome.delay_ms == 0) or outcome.status == "retrying"
