"""How the library logs errors without a listener: as one line, a surprise with its traceback."""

from __future__ import annotations

import pytest

from beeq import Discard, JobLost, QueueClosed, RedisRefused, Retry
from beeq.errors import MAX_LINE, is_expected, kind_and_text_of, one_line, shortened
from beeq.jobs import InvalidJob
from beeq.logs.records import log_queue_error


@pytest.mark.parametrize(
    "error", [Discard("no"), Retry(), QueueClosed(), InvalidJob(["no"]), RedisRefused("OOM"), JobLost("1")]
)
def test_an_expected_error_is_logged_without_traceback(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    assert is_expected(error)
    log_queue_error("q", error)
    (record,) = caplog.records
    assert record.exc_info is None
    job = "job 1: " if isinstance(error, JobLost) else ""
    assert record.getMessage() == f"queue q: {job}{kind_and_text_of(error)}"


@pytest.mark.parametrize("error", [ValueError("no"), KeyError("no"), KeyboardInterrupt(), TimeoutError()])
def test_a_surprise_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    assert not is_expected(error)
    log_queue_error("q", error)
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error


def test_an_id_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    evil = JobLost("1\nERROR forged\x1b[2J\u2028\u202e\x85\ud800\u200b\U000e0041")
    log_queue_error("q", evil)
    (message,) = caplog.messages
    assert message.isprintable()
    assert "1\\nERROR forged\\x1b[2J\\u2028\\u202e\\x85\\ud800\\u200b\\U000e0041" in message


def test_a_line_is_bounded_and_shows_both_ends() -> None:
    line = one_line("begin" + "x" * 1_000_000 + "end")
    assert line.startswith("begin")
    assert line.endswith("end (1000008 characters)")
    assert len(line) < MAX_LINE + 50
    assert shortened("x" * MAX_LINE) == "x" * MAX_LINE
