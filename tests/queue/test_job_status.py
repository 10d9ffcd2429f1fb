"""A job's status out of Redis: whose message it shows, and what it does without."""

from __future__ import annotations

from typing import Any

import pytest

from beeq.client.reader import Ended, JobState
from beeq.errors import JobFailed
from beeq.job_status import message_in, status_document
from beeq.protocol.codec import Record

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("trace", "message"),
    [
        ("ValueError: no: really\nTraceback (most recent call last):\n  File …", "no: really"),
        ("ValueError: one\ntwo\nTraceback (most recent call last):\n  File …", "one\ntwo"),
        ("Error: Job 7 timed out (5 ms)", "Job 7 timed out (5 ms)"),
        ("TypeError: x is not a function\n    at handler (/a.js:1:2)\n    at run", "x is not a function"),
        ("not found: the file", "not found: the file"),
        (
            "ExceptionGroup: several (2 sub-exceptions)\n  + Exception Group Traceback …",
            "several (2 sub-exceptions)",
        ),
        ("", ""),
    ],
)
def test_a_message_stands_before_the_calls_without_its_type(trace, message):
    assert message_in(trace) == message


def document(state: str, ended: Ended | None, *traces: str, status: str = "failed") -> dict[str, Any]:
    record = Record({"projectId": "p"}, {"timestamp": 1000, "stacktraces": list(traces)}, status)
    return status_document("webhook-processing", "7", JobState(state, record, ended))


def test_a_message_that_was_kept_is_shown_as_it_is():
    kept = Ended(error=JobFailed("7", "Hint: try\nagain"))
    assert (
        document("failed", kept, "ValueError: Hint: try\nagain\nTraceback …")["error"] == "Hint: try\nagain"
    )


def test_a_trace_is_not_shown_where_nobody_kept_the_message():
    trace = "Error: broken\n    at run (/a.js:1:2)"
    assert document("failed", Ended(error=JobFailed("7", trace)), trace)["error"] == "broken"


@pytest.mark.parametrize(
    ("status", "error"), [("retrying", "once more"), ("created", None), ("failed", None)]
)
def test_the_last_error_is_shown_only_before_another_attempt(status, error):
    assert document("queued", None, "ValueError: once more\nTraceback …", status=status)["error"] in (
        error,
        None if error is None else "once more\nTraceback …",
    )
