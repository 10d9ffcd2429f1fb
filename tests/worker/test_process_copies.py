"""Handlers that fork in their child process: the copies cannot speak for it, and no call waits for ever."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import pytest_asyncio

from beeq import JobFailed, Queue
from tests.support.lent import on_the_modules_loop, queue_with_one_child
from tests.support.waiting import Recorder
from tests.worker import forking_handlers as handlers

pytestmark = pytest.mark.external  # each starts child processes

PATIENCE_MS = 30_000
BROKEN = "^the child process wrote something else to its connection to the worker$"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_modules_worker(valkey):
    async with queue_with_one_child(valkey, handlers.act) as queue:
        yield queue


@pytest.fixture
def worker(the_modules_worker):
    """A queue whose handler does what the job says, in a child process that has served other tests."""
    with the_modules_worker.lent() as queue:
        yield queue


@pytest.fixture
async def own_worker(make_queue):
    """Another one, with a child for this test alone."""
    queue = make_queue()
    queue.process(handlers.act, executor="process")
    return queue


async def done(queue: Queue, do: str, **facts: Any) -> tuple[int, Any]:
    """Return the child that ran it, and what it returned."""
    job = await queue.enqueue({"do": do, **facts})
    pid, result = await job.result(timeout=PATIENCE_MS)
    return pid, result


# Copies that Python makes are cut off at once.


@on_the_modules_loop
async def test_a_copys_report_is_refused_and_its_originals_heard(worker):
    heard = Recorder(worker, "job progress")
    pid, result = await done(worker, "report_in_both")
    assert result == [1, "original"]
    assert [progress for _, progress in heard.of("job progress")] == ["original"]
    assert (await done(worker, "report_in_both"))[0] == pid


async def test_what_a_copy_raised_is_shown_in_the_log(own_worker, capfd):
    await done(own_worker, "report_in_both")
    assert "RuntimeError: this process is a copy that the handler forked" in capfd.readouterr().err


@on_the_modules_loop
@pytest.mark.parametrize(
    ("how", "code"), [("raises", 1), ("exits", 7), ("leaves", 8), ("closes all", 1), ("returns", 1)]
)
async def test_a_copy_that_comes_back_ends_nothing_but_itself(worker, how, code):
    pid, result = await done(worker, "come_back_from_copy", how=how)
    assert result == code
    assert (await done(worker, "come_back_from_copy", how=how))[0] == pid


@on_the_modules_loop
async def test_copies_of_a_busy_process_wait_for_none_of_its_locks(worker):
    assert (await done(worker, "report_while_copies_do"))[1] == [[1], 1]


@on_the_modules_loop
async def test_a_copy_may_go_on_after_its_job(worker):
    pid, copy = await done(worker, "leave_copy_behind")
    assert await done(worker, "leave_copy_behind") != (pid, copy)
    os.kill(copy, 0)  # it is there


@on_the_modules_loop
@pytest.mark.parametrize(("method", "code"), [("fork", 1), ("spawn", 0), ("forkserver", 0)])
async def test_a_handler_may_use_multiprocessing_in_each_way(worker, method, code):
    pid, result = await done(worker, "use_multiprocessing", method=method)
    assert result == [code, [1, 2]]
    assert (await done(worker, "go_on_reporting"))[0] == pid


@on_the_modules_loop
async def test_a_signal_ends_a_copy(worker):
    """Else a pool of processes could not be closed: it asks them to end, and waits."""
    assert (await done(worker, "terminate_a_copy"))[1] == -signal.SIGTERM


@on_the_modules_loop
async def test_a_program_that_is_executed_has_no_connection(worker):
    assert (await done(worker, "fork_and_exec"))[1] == [0, 4]  # the standard three, and the listing's own


# Copies that C code makes have the descriptor.


@on_the_modules_loop
async def test_a_copy_that_python_did_not_see_is_refused_too(worker):
    assert (await done(worker, "report_in_unnoticed_copy"))[1] is True


@on_the_modules_loop
@pytest.mark.parametrize("size", [1, 20, 100, 4000])
@pytest.mark.parametrize("reports", [False, True])
async def test_half_a_message_of_a_copy_fails_the_job_and_says_so(worker, size, reports):
    job = await worker.enqueue({"do": "write_half_a_message", "bytes": size, "reports": reports})
    with pytest.raises(JobFailed, match=BROKEN):
        await job.result(timeout=PATIENCE_MS)
    assert (await done(worker, "report_in_both"))[1] == [1, "original"]


@on_the_modules_loop
async def test_a_copys_end_is_dropped_and_the_child_replaced(worker, caplog):
    pid, result = await done(worker, "end_in_unnoticed_copy")
    assert result == "original"
    assert "a child process is replaced: it sent 'end', which belongs to no live call" in caplog.text
    assert (await done(worker, "go_on_reporting"))[0] != pid


# What belongs to no live call.


@on_the_modules_loop
@pytest.mark.parametrize(
    ("do", "result"), [("end_twice", None), ("end_later", "in time"), ("send_for_another_attempt", "right")]
)
async def test_what_belongs_to_no_live_call_ends_no_other_job(worker, do, result):
    job = await worker.enqueue({"do": do})
    first = await job.result(timeout=PATIENCE_MS)
    if result is None:
        assert first == "first"
    else:
        assert first[1] == result
    jobs = [await worker.enqueue({"do": "report_in_both"}) for _ in range(20)]
    results = [await job.result(timeout=PATIENCE_MS) for job in jobs]
    assert [result for _, result in results] == [[1, "original"]] * 20


@on_the_modules_loop
async def test_who_ends_twice_is_replaced(worker, caplog):
    pids = set()
    for _ in range(2):
        await (await worker.enqueue({"do": "end_twice"})).result(timeout=PATIENCE_MS)
        pids.add((await done(worker, "report_in_both"))[0])
    assert len(pids) == 2
    assert caplog.text.count("a child process is replaced") == 2


async def test_threads_of_ended_attempts_are_refused(own_worker):
    """They report all the time; the next jobs have the same child."""
    seen = [await done(own_worker, "go_on_reporting") for _ in range(5)]
    assert len({pid for pid, _ in seen}) == 1
    ids = {lost for _, result in seen for lost in result}
    assert ids <= {"1", "2", "3", "4"}


@on_the_modules_loop
@pytest.mark.parametrize(
    "message",
    [
        ["nonsense", {}],
        ["end", {"attempt": 0, "is_error": False, "size": "much"}],
        ["end", {"attempt": 0, "is_error": True, "size": 2}],
        ["end", {"attempt": 0}],
        ["call", {"attempt": 0, "number": 10**6, "command": "act", "size": -1}],
        ["call", {"attempt": 0, "number": 10**6, "command": "act", "size": None}],
    ],
)
async def test_a_malformed_message_fails_the_job_and_no_other(worker, message):
    """The handler puts in its attempt, where there is one."""
    job = await worker.enqueue({"do": "say_what_is_not_said", "messages": [message]})
    with pytest.raises(JobFailed, match=BROKEN):
        await job.result(timeout=PATIENCE_MS)
    assert (await done(worker, "report_in_both"))[1] == [1, "original"]


@on_the_modules_loop
@pytest.mark.parametrize("is_error", [False, True])
async def test_nothing_that_a_child_sends_is_executed(worker, tmp_path, is_error):
    path = tmp_path / "executed"
    job = await worker.enqueue({"do": "send_pickles", "path": str(path), "is_error": is_error})
    with pytest.raises(JobFailed, match=BROKEN):
        await job.result(timeout=PATIENCE_MS)
    assert not path.exists()
