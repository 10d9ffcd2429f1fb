"""``process(handler, executor="process")``: what handlers in child processes get, give and may do."""

from __future__ import annotations

import asyncio
import functools
import json
import os
from typing import Any

import pytest
import pytest_asyncio

from beeq import Discard, Job, JobFailed, Queue, Retry
from beeq.worker.attempts.processes.ipc import ChildTraceback
from tests.support.lent import on_the_modules_loop, queue_with_one_child
from tests.support.waiting import Recorder
from tests.worker import process_handlers as handlers

PATIENCE_MS = 30_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_modules_worker(valkey):
    async with queue_with_one_child(valkey, handlers.act) as queue:
        queue.backoff_strategies["own"] = lambda _job: 1
        yield queue


@pytest.fixture
def worker(the_modules_worker):
    """A queue whose handler does what the job says, in a child process that has served other tests."""
    with the_modules_worker.lent() as queue:
        yield queue


async def done(queue: Queue, do: str, *, retries: int = 0, **facts: Any) -> Any:
    """Return what the handler returns."""
    job = await queue.enqueue({"do": do, **facts}, retries=retries)
    return await job.result(timeout=PATIENCE_MS)


async def refused(queue: Queue, message: str, do: str, *, retries: int = 0, **facts: Any) -> Job:
    """Run a job that fails with a message; return it."""
    job = await queue.enqueue({"do": do, **facts}, retries=retries)
    with pytest.raises(JobFailed, match=message):
        await job.result(timeout=PATIENCE_MS)
    return job


def stored(sync_redis: Any, job: Job) -> Any:
    return json.loads(sync_redis.hget(job.queue.keys.jobs, job.id))


# Which handlers, and where they run.


@pytest.mark.parametrize("executor", ["fork", "processes", "", None, 1])
def test_an_executor_that_is_none_is_refused_by_name(executor):
    with pytest.raises(ValueError, match="executor") as refusal:
        Queue("addition").process(handlers.act, executor=executor)
    assert repr(executor) in str(refusal.value)


@pytest.mark.parametrize("executor", ["thread", "process"])
def test_a_coroutine_function_is_refused_for_plain_functions(executor):
    queue = Queue("addition")
    with pytest.raises(TypeError, match="coroutine function"):
        queue.process(handlers.coroutine, executor=executor)
    with pytest.raises(TypeError, match="coroutine function"):
        queue.process(functools.partial(handlers.coroutine), executor=executor)
    assert queue.handler is None


def closure(_job):
    """Overwritten below: by name one finds something else."""


original_closure = closure


def closure(_job):  # type: ignore[no-redef]  # that is the point
    """Another one."""


def test_what_a_child_could_not_find_is_refused_at_once():
    def local(_job):
        """Nobody can import it."""

    for handler in (local, lambda job: job, functools.partial(local), handlers.Adder(lambda: 0)):
        queue = Queue("addition")
        with pytest.raises(TypeError, match="importable by name|picklable"):
            queue.process(handler, executor="process")
        with pytest.raises(TypeError, match="importable by name|picklable"):
            queue.process(executor="process")(handler)
        assert queue.handler is None


async def test_a_name_that_means_another_thing_fails_and_says_so(make_queue):
    queue = make_queue()
    queue.process(original_closure, executor="process")
    job = await queue.enqueue({})
    with pytest.raises(JobFailed, match="cannot find the handler: .*closure is something else"):
        await job.result(timeout=PATIENCE_MS)


@pytest.mark.parametrize(
    ("handler", "result"),
    [
        (functools.partial(handlers.triple, 3), 21),
        (handlers.Adder(10), 17),
        (handlers.Adder(20).add, 27),
        (handlers.decorated, ["wrapped", 7]),
    ],
)
async def test_functions_by_name_and_what_can_be_pickled_run_there(make_queue, handler, result):
    queue = make_queue()
    assert queue.process(handler, executor="process") is handler
    assert await (await queue.enqueue({"n": 7})).result(timeout=PATIENCE_MS) == result


async def test_plain_functions_run_in_threads_unless_said_otherwise(make_queue):
    for executor in ("auto", "thread"):
        queue = make_queue(name=f"{make_queue().name}-{executor}")
        queue.process(executor=executor)(handlers.who)
        assert await (await queue.enqueue({})).result(timeout=PATIENCE_MS) == os.getpid()


@on_the_modules_loop
async def test_one_child_serves_one_job_after_another(worker):
    pids = [await done(worker, "who") for _ in range(5)]
    assert len(set(pids)) == 1
    assert pids[0] != os.getpid()


async def test_as_many_children_as_jobs_may_run_and_never_more(make_queue, tmp_path):
    queue = make_queue()
    queue.process(handlers.act, concurrency=2, executor="process")
    jobs = [
        await queue.enqueue({"do": "say_and_end", "folder": str(tmp_path), "together": 2}) for _ in range(6)
    ]
    pids = await asyncio.gather(*(job.result(timeout=PATIENCE_MS) for job in jobs))
    assert len(set(pids)) == 2


# The job in a child.


@on_the_modules_loop
async def test_the_job_has_its_blocking_face(worker):
    job = await worker.enqueue({"do": "describe", "more": ["ä", 2**70]}, timeout=60_000)
    assert await job.result(timeout=PATIENCE_MS) == {
        "kind": "BlockingJob",
        "id": job.id,
        "data": {"do": "describe", "more": ["ä", 2**70]},
        "options": job.options,
        "status": "created",
        "progress": 0,
        "memory": {},
        "shown": f"<Job '{job.id}' of '{worker.name}': created>",
    }


@on_the_modules_loop
@pytest.mark.parametrize("fails", [False, True])
async def test_what_a_handler_changes_is_kept_with_the_job(worker, sync_redis, fails):
    """And it counts: a handler may give up its retries."""
    job = await worker.enqueue({"do": "change", "fails": fails}, retries=5)
    if fails:
        with pytest.raises(JobFailed, match="changed and failed"):
            await job.result(timeout=PATIENCE_MS)
    else:
        assert await job.result(timeout=PATIENCE_MS) is None
    record = stored(sync_redis, job)
    assert record["data"] == {"do": "change", "fails": fails, "seen": True}
    assert (record["options"]["retries"], record["options"]["mine"]) == (0, {"a": 1})
    assert record["status"] == ("failed" if fails else "succeeded")


@on_the_modules_loop
async def test_a_report_takes_the_changes_along(worker, sync_redis):
    job = await worker.enqueue({"do": "replace_data"})
    assert await job.result(timeout=PATIENCE_MS) == 1
    assert stored(sync_redis, job)["data"] == ["new"]


@on_the_modules_loop
async def test_progress_is_heard_in_order_and_its_hearers_are_counted(worker):
    heard = Recorder(worker, "job progress")
    values = [1, {"a": [None]}, "text", 2.5]
    job = await worker.enqueue({"do": "report", "values": values})
    assert await job.result(timeout=PATIENCE_MS) == [[1, 1, 1, 1], 2.5]
    assert await heard.until("job progress", count=4) == [(job.id, value) for value in values]


@on_the_modules_loop
@pytest.mark.parametrize("dies", [False, True])
async def test_what_it_remembers_is_there_at_the_next_attempt(worker, dies):
    assert await done(worker, "remember", retries=1, dies=dies) == {"order": "order-1", "asked": True}


@on_the_modules_loop
async def test_it_can_ask_where_it_is(worker):
    assert await done(worker, "look") == {"active": True, "waiting": False, "succeeded": False}


@on_the_modules_loop
async def test_a_refused_command_raises_what_it_raises_in_a_thread(worker, valkey, queue_name):
    refusals = {}
    async with Queue(queue_name, redis=valkey.url) as in_thread:
        in_thread.backoff_strategies["own"] = lambda _job: 1
        in_thread.process(handlers.act, executor="thread")
        for executor, queue in (("thread", in_thread), ("process", worker)):
            job = await queue.enqueue({"do": "refuse"})
            found = await job.result(timeout=PATIENCE_MS)
            refusals[executor] = {k: text.replace(f"Job {job.id} ", "Job … ") for k, text in found.items()}
    listening = refusals["process"].pop("listen")
    assert listening == "RuntimeError: a child process hears no events: listen in the worker"
    assert refusals["process"] == refusals["thread"]
    assert refusals["thread"].keys() == handlers.REFUSALS.keys() - {"listen"}


@on_the_modules_loop
async def test_beeqs_own_errors_are_raised_as_what_they_are(worker):
    heard = Recorder(worker, "job progress", "error")
    job = await worker.enqueue({"do": "lose"})
    ((_, reported),) = await heard.until("job progress")
    assert reported["lost"][1] == job.id
    assert "no longer owned" in reported["lost"][0]
    await heard.until("error")


@on_the_modules_loop
async def test_moves_from_many_threads_do_not_mix(worker):
    heard = await done(worker, "report_from_threads")
    assert [[n, is_active] for n, _, is_active in heard] == [[n, True] for n in range(20)]


@on_the_modules_loop
async def test_a_thread_a_handler_left_behind_cannot_change_the_job(worker):
    job = await worker.enqueue({"do": "leave_a_thread_behind"})
    assert await job.result(timeout=PATIENCE_MS) == "left"
    (fate,) = await done(worker, "leave_a_thread_behind")
    assert fate.startswith(f"Job {job.id} was no longer owned")


# Outcomes.


@on_the_modules_loop
@pytest.mark.parametrize(
    ("error", "first_line", "message", "kind"),
    [
        ("ValueError", "ValueError: boom", "boom", ValueError),
        ("empty", "ValueError: ValueError", "ValueError", ValueError),
        ("KeyError", "KeyError: 'k'", "'k'", KeyError),
        (
            "OSError",
            "FileNotFoundError: [Errno 2] No such file: 'x'",
            "[Errno 2] No such file: 'x'",
            FileNotFoundError,
        ),
        ("UnicodeDecodeError", "UnicodeDecodeError: 'utf-8' codec", "'utf-8' codec", UnicodeDecodeError),
        ("ExceptionGroup", "ExceptionGroup: many (1 sub-exception)", "many (1 sub-exception)", Exception),
        ("surrogate", "ValueError: half ", "half ", ValueError),
        ("Odd", "Odd: odd one", "odd one", Exception),
        ("Broken", "Broken: Broken", "Broken", Exception),
        ("SystemExit", "SystemExit: 3", "3", Exception),
        ("KeyboardInterrupt", "KeyboardInterrupt: KeyboardInterrupt", "KeyboardInterrupt", Exception),
        ("CancelledError", "CancelledError: CancelledError", "CancelledError", Exception),
        ("StopIteration", "StopIteration: stop", "stop", Exception),
        ("GeneratorExit", "GeneratorExit: GeneratorExit", "GeneratorExit", Exception),
        ("long", "ValueError: xxx", "xxx", ValueError),
    ],
)
async def test_an_error_keeps_its_name_its_message_and_its_traceback(
    worker, sync_redis, error, first_line, message, kind
):
    heard = Recorder(worker, "failed")
    job = await worker.enqueue({"do": "fail", "error": error})
    with pytest.raises(JobFailed) as failure:
        await job.result(timeout=PATIENCE_MS)
    assert str(failure.value).startswith(message)
    (trace,) = (stored(sync_redis, job))["options"]["stacktraces"]
    assert trace.splitlines()[0].startswith(first_line)
    assert "process_handlers.py" in trace or error == "long"
    ((_, raised),) = await heard.until("failed")
    assert isinstance(raised, kind)
    assert isinstance(raised.__cause__, ChildTraceback)
    assert await done(worker, "echo", value="the child is well") == "the child is well"


@on_the_modules_loop
async def test_the_trace_shows_where_in_the_child_the_error_came_from(worker, sync_redis):
    job = await refused(worker, "^up here$", "fail_deep_down")
    (trace,) = stored(sync_redis, job)["options"]["stacktraces"]
    assert trace.startswith("RuntimeError: up here\n")
    assert "in innermost" in trace
    assert "ValueError: down here" in trace
    assert "child_main.py" not in trace


@on_the_modules_loop
async def test_retry_waits_as_long_as_it_says(worker):
    heard = Recorder(worker, "retrying")
    assert await done(worker, "retry_later", retries=1, long=False) == "later"
    ((_, error),) = await heard.until("retrying")
    assert isinstance(error, Retry)
    assert (type(error).__name__, str(error), error.after) == ("Busy", "not now", 1)
    job = await worker.enqueue({"do": "retry_later", "long": True}, retries=1)
    ((_, error),) = (await heard.until("retrying", count=2))[1:]
    assert error.after == 60_000
    assert (await worker.check_health()).delayed == 1
    await worker.remove_job(job.id)


@on_the_modules_loop
async def test_discard_fails_for_good(worker):
    heard = Recorder(worker, "failed:fatal")
    with pytest.raises(JobFailed, match="^hopeless$"):
        await done(worker, "discard", retries=5)
    ((job, error),) = await heard.until("failed:fatal")
    assert isinstance(error, Discard)
    assert error.reason == "hopeless"
    assert job.options["retries"] == 5


@on_the_modules_loop
@pytest.mark.parametrize("kind", ["object", "bytes", "set"])
async def test_a_result_that_is_no_json_fails_the_job_for_good(worker, sync_redis, kind):
    message = "^cannot be written as JSON: .*" + kind
    record = stored(sync_redis, await refused(worker, message, "return_something_odd", retries=3, kind=kind))
    assert (record["status"], record["options"]["retries"]) == ("failed", 3)
    assert record["options"]["stacktraces"][0].startswith("TypeError: cannot be written as JSON: ")


@on_the_modules_loop
@pytest.mark.parametrize("fails", [False, True])
async def test_a_handler_that_spoils_its_job_loses_no_outcome(worker, sync_redis, fails):
    message = "spoilt and failed" if fails else "cannot be written as JSON"
    record = stored(sync_redis, await refused(worker, message, "spoil_data", fails=fails))
    assert (record["data"], record["status"]) == ({"do": "spoil_data", "fails": fails}, "failed")


@on_the_modules_loop
@pytest.mark.parametrize("options", [None, [], "text", 7])
async def test_a_handler_that_breaks_its_options_loses_no_outcome(worker, sync_redis, options):
    heard = Recorder(worker, "error")
    job = await worker.enqueue({"do": "spoil_options", "options": options})
    assert await job.result(timeout=PATIENCE_MS) == "done"
    assert stored(sync_redis, job)["status"] == "succeeded"
    assert heard.calls, "it is reported"


# What a handler may do in its process.


@on_the_modules_loop
async def test_ten_megabytes_go_both_ways_and_through_every_move(worker):
    value = "é" * 5_000_000 + "x" * 100
    assert await done(worker, "echo", value=value) == value
    heard, progress = await done(worker, "report", values=[value])
    assert (len(heard), progress) == (1, value)


async def test_what_a_child_prints_is_on_the_workers_own_output(make_queue, capfd):
    queue = make_queue()
    queue.process(handlers.act, executor="process")
    assert await done(queue, "print_much", lines=20_000) == ""
    assert await done(queue, "echo", value="still well") == "still well"
    output, errors = capfd.readouterr()
    assert output.splitlines()[:1] == ["line 0 of 1"]
    assert len(output.splitlines()) == 20_001
    assert "raw bytes of 1" in output
    assert "error line 19999" in errors


@on_the_modules_loop
async def test_a_handler_that_forks_ends_once(worker):
    assert await done(worker, "fork") == ["original", 1]
    assert await done(worker, "echo", value="well") == "well"


async def test_a_child_has_only_its_connection_to_the_worker_open(make_queue, tmp_path):
    """Neither to Redis, nor the worker's files, nor its siblings' connections."""
    queue = make_queue()
    queue.process(handlers.act, concurrency=2, executor="process")
    together = {"do": "say_and_end", "folder": str(tmp_path), "together": 2}
    jobs = [await queue.enqueue(together) for _ in range(2)]
    await asyncio.gather(*(job.result(timeout=PATIENCE_MS) for job in jobs))
    for _ in range(2):
        assert await done(queue, "descriptors") == ["socket"]


async def test_a_handler_may_enqueue_jobs_on_a_connection_of_its_own(make_queue, valkey):
    queue = make_queue()
    queue.process(handlers.act, concurrency=2, executor="process")
    pid = await done(queue, "enqueue_another", name=queue.name, url=valkey.url)
    assert pid not in (0, os.getpid())


@on_the_modules_loop
async def test_a_handler_may_use_multiprocessing(worker):
    assert await done(worker, "use_multiprocessing") == [7, 0]


@on_the_modules_loop
async def test_a_handlers_programs_hear_signals_and_its_child_does_not(worker):
    assert await done(worker, "take_signals") == "unimpressed"
    assert await done(worker, "stop_a_program") == -15


@pytest.mark.external  # it takes long
async def test_a_handler_that_uses_up_a_core_delays_nobody(make_queue, tmp_path, recorder):
    queue = make_queue(stall_interval=300)
    other = make_queue(name=f"{queue.name}-other")
    stalled = recorder(queue, "stalled")
    queue.process(handlers.act, executor="process")

    @other.process
    async def quick(job):
        return job.data

    begun = recorder(queue, "job progress")
    spinning = await queue.enqueue({"do": "spin_until_told", "until": str(tmp_path / "enough")})
    await begun.until("job progress", within_s=30)
    loop, n = asyncio.get_running_loop(), 0
    over = loop.time() + 1.5  # five stall checks
    while loop.time() < over:
        n += 1
        assert await (await other.enqueue(n)).result(timeout=1000) == n
    (tmp_path / "enough").touch()
    assert isinstance(await spinning.result(timeout=PATIENCE_MS), int)
    assert stalled.calls == []
    assert n > 50
