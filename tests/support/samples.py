"""What the unit tests of the core are made of: jobs without a queue, and JSON values of every kind."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

from hypothesis import strategies as st

from beeq import Job
from beeq.emitter import Emitter
from beeq.protocol.backoff import builtin_strategies
from beeq.protocol.codec import Record, decode_record, encode_record

NOW_MS = 1_795_488_864_455


def job_record(status: str = "created", *, created_ms: int = 1, trace: str = "", **data: Any) -> str:
    """Return the text of a job's record."""
    options = {"timestamp": created_ms, "stacktraces": [trace] if trace else [], "retries": 0}
    return json.dumps({"data": data, "options": options, "status": status, "progress": 0})


class Errors(list[tuple[str, BaseException]]):
    """What an emitter reported: event and error."""

    def __call__(self, event: str, error: BaseException) -> None:
        """Write it down."""
        self.append((event, error))


def make_job(
    options: dict[str, Any] | None = None, *, data: Any = None, job_id: str | None = "7", keep: Any = None
) -> Job:
    """Return a job as a worker has it: claimed, with its record at hand, of a queue that does nothing."""

    def refuse(_subscription: Any, coroutine: Any) -> None:
        coroutine.close()
        raise AssertionError("no listener of these tests is a coroutine function")

    def new_emitter() -> Emitter:
        return Emitter(on_awaitable=refuse, on_error=Errors())

    owner = SimpleNamespace(
        name="q",
        backoff_strategies=builtin_strategies(),
        new_emitter=new_emitter,
        listening_changed=keep or (lambda _job: None),
        now_ms=lambda: NOW_MS,
    )
    record = Record({"a": 1} if data is None else data, {"timestamp": NOW_MS, "stacktraces": []})
    record.options |= options or {}
    raw = encode_record(record)
    job = Job(cast("Any", owner), decode_record(job_id or "", raw, now_ms=NOW_MS), job_id)
    job.claim, job.claimed_record = b"token:1", raw
    return job


def nested(depth: int) -> list[Any]:
    """Return a list in a list in a list…"""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def json_values(*, is_lone_surrogate_allowed: bool = False) -> st.SearchStrategy[Any]:
    """Return a strategy of JSON values, integers of any size among them."""
    excluded = () if is_lone_surrogate_allowed else ("Cs",)
    text = st.text(st.characters(exclude_categories=excluded))  # type: ignore[arg-type]  # hypothesis wants literals
    leaves = st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), text
    )
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
        max_leaves=12,
    )


def raised(error: BaseException) -> BaseException:
    """Return the error as one that was raised and caught: with a traceback."""

    def handler() -> None:
        raise error

    try:
        handler()
    except BaseException as caught:  # noqa: BLE001 - that is what this is for
        return caught
    raise AssertionError("unreachable")
