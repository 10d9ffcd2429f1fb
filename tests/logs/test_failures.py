"""What the library logs of jobs that nobody listens to, and which facts a program's own lines get."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from beeq import Discard, Queue
from beeq.logs import JobLogFilter
from beeq.worker import watch
from tests.logs.log_handlers import says, says_in_coroutine, says_in_thread
from tests.support.waiting import Recorder, eventually


async def worked_off(queue: Queue, handler: Any, *data: Any, retries: int = 0) -> None:
    queue.process(handler)
    await queue.save_all([queue.create_job(each).retries(retries) for each in data])
    await queue.run(burst=True)


@pytest.fixture
def failures(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    """What was logged of jobs that failed."""
    caplog.set_level(logging.INFO, "beeq")
    return lambda: [each for each in caplog.records if hasattr(each, "error_type")]


async def test_a_failure_that_nobody_hears_is_logged(make_queue, failures) -> None:
    queue = make_queue()
    await worked_off(queue, says, {"do": "surprise"}, retries=1)
    first, last = failures()
    text = "ValueError: redis://***@host\\n\\x1b[2Jforged: line\\u202e"
    begin = f"queue {queue.name}: job 1: attempt"
    assert first.getMessage() == f"{begin} 1 failed, and is tried again now: {text}"
    assert last.getMessage() == f"{begin} 2 failed, for good: {text}"
    assert [each.levelname for each in (first, last)] == ["WARNING", "ERROR"]
    assert [each.name for each in (first, last)] == ["beeq", "beeq"]
    known = vars(last)
    assert [known[name] for name in ("queue", "job", "attempt")] == [queue.name, "1", 2]
    assert known["error_type"] == "ValueError"
    assert known["error"] == text.removeprefix("ValueError: ")
    assert known["duration_ms"] >= 0
    assert known["worker"].count(":") == 2


async def test_the_traceback_of_a_surprise_forges_no_line(make_queue, failures) -> None:
    await worked_off(make_queue(), says, {"do": "surprise"})
    (failed,) = failures()
    _, *trace = logging.Formatter().format(failed).split("\n")
    assert any("in says" in line for line in trace)
    assert all(line.startswith("    ") and line.isprintable() for line in trace)
    assert not any("hush" in line for line in trace)


async def test_an_expected_failure_has_a_trace_at_debug_only(make_queue, failures, caplog) -> None:
    queue = make_queue()
    await worked_off(queue, says, {"do": "discard"})
    caplog.set_level(logging.DEBUG, "beeq")
    await queue.enqueue({"do": "discard"})
    await queue.run(burst=True)
    assert [bool(each.exc_info) for each in failures()] == [False, True]


@pytest.mark.parametrize(
    ("event", "retries", "levels"),
    [
        ("failed", 1, []),
        ("failed:fatal", 1, ["WARNING"]),
        ("retrying", 1, ["ERROR"]),
        ("error", 1, ["WARNING", "ERROR"]),
        ("job failed", 0, ["ERROR"]),
    ],
)
async def test_what_a_listener_hears_is_not_logged(make_queue, failures, event, retries, levels) -> None:
    queue = make_queue()
    queue.on(event, lambda *_: None)
    await worked_off(queue, says, {"do": "surprise"}, retries=retries)
    assert [each.levelname for each in failures()] == levels


async def test_a_broken_listener_is_logged_with_its_traceback(make_queue, failures, valkey) -> None:
    made = make_queue()
    queue = Queue(made.name, redis=valkey.url)  # to whose errors nobody listens
    queue.on("succeeded", lambda *_: dict[str, int]()["x"])
    async with queue:
        await worked_off(queue, says, {"do": "nothing"})
    (failed,) = failures()
    assert failed.getMessage() == f"queue {queue.name}: KeyError: 'x'"
    assert failed.exc_info


async def test_an_end_that_is_no_failure_is_logged_at_debug(make_queue, caplog) -> None:
    queue = make_queue()
    caplog.set_level(logging.DEBUG, "beeq")
    await worked_off(queue, says, {"do": "nothing"})
    (line,) = [each for each in caplog.records if hasattr(each, "job")]
    assert line.getMessage().startswith(f"queue {queue.name}: job 1: succeeded in ")
    assert (line.levelname, vars(line)["attempt"]) == ("DEBUG", 1)


async def test_a_job_whose_worker_was_lost_is_logged(make_queue, redis, failures, caplog) -> None:
    queue = make_queue(stall_interval=50, is_worker=False)
    job = await queue.enqueue({})
    await redis.lmove(queue.keys.waiting, queue.keys.active)
    await redis.sadd(queue.keys.stalling, job.saved_id())
    await redis.delete(queue.keys.stall_block)
    assert await queue.check_stalled_jobs() == 1
    line = f"queue {queue.name}: job 1: was lost by its worker, and is queued again"
    assert line in caplog.messages


# The program's own loggers.


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What a handler of the log with the filter gets of the program's logger."""
    taken: list[dict[str, Any]] = []

    class Taking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            taken.append(vars(record))

    handler, logger = Taking(), logging.getLogger("program.mail")
    handler.addFilter(JobLogFilter())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield taken
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("handler", [says_in_coroutine, says_in_thread])
async def test_a_handlers_own_lines_name_queue_and_job(make_queue, lines, handler) -> None:
    queue = make_queue()
    await worked_off(queue, handler, "a", "b")
    facts = {(line["msg"] % line["args"], line["queue"], line["job"], line["attempt"]) for line in lines}
    assert facts == {("said a", queue.name, "1", 1), ("said b", queue.name, "2", 1)}


async def test_a_line_outside_jobs_names_the_process_only(make_queue, lines) -> None:
    await worked_off(make_queue(), says_in_coroutine, "a")
    logging.getLogger("program.mail").info("x")
    assert "job" in lines[0]
    assert "job" not in lines[1]
    assert lines[1]["worker"] == lines[0]["worker"]


# Places.


async def test_places_taken_for_long_while_jobs_wait_are_said(make_queue, caplog, monkeypatch) -> None:
    monkeypatch.setattr(watch, "FULL_S", 0.05)
    caplog.set_level(logging.INFO, "beeq")
    queue = make_queue(stall_interval=1000)
    goes = Recorder(queue, "succeeded")

    async def waits_for_the_line(_job: Any) -> None:
        await eventually(lambda: any("all places" in message for message in caplog.messages))

    queue.process(waits_for_the_line)
    await queue.save_all([queue.create_job() for _ in range(2)])
    await goes.until("succeeded", 2)
    (said, *_) = [each for each in caplog.records if "all places" in each.getMessage()]
    assert said.levelname == "WARNING"
    begin, _, end = said.getMessage().partition(" s, ")
    assert begin.startswith(f"queue {queue.name}: all places have been taken for ")
    assert end.startswith("1 jobs wait; none of the jobs that run has ended meanwhile; job 1 runs for ")


async def test_a_chosen_failure_is_one_line(make_queue, failures) -> None:
    async def discards(_job: Any) -> None:
        raise Discard("no")

    await worked_off(make_queue(), discards, {})
    (failed,) = failures()
    assert failed.exc_info is None
    assert failed.getMessage().endswith("attempt 1 failed, for good: Discard: no")
