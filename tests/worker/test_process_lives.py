"""How child processes of ``executor="process"`` start, die, are killed, and leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from beeq import JobFailed, JobTimedOut, Queue
from beeq.protocol.codec import dumps, loads
from beeq.worker.attempts.processes.child_process import ChildDied, ChildProcess
from beeq.worker.attempts.processes.group_keeper import GroupKeeper
from beeq.worker.attempts.processes.handler_ref import HandlerRef
from beeq.worker.attempts.processes.ipc import TOKEN_BYTES, Decoder, encode
from tests.cli.command import Beeq
from tests.cli.command import eventually as within_s
from tests.support.lent import on_the_modules_loop, queue_with_one_child
from tests.support.waiting import Recorder, eventually
from tests.worker import process_handlers as handlers

pytestmark = pytest.mark.external  # each starts child processes

PATIENCE_MS = 30_000
ROOT = Path(__file__).resolve().parents[2]


def is_alive(pid: int) -> bool:
    """Return whether the process lives; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def is_keeper(pid: int) -> bool:
    """Return whether the process only watches the worker, to kill its children after it."""
    try:
        return b"keeper_main.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(of: int | None = None) -> set[int]:
    """Return the processes that a process, this one by default, has started and not buried; not its keepers."""
    return {pid for pid in started(of) if not is_keeper(pid)}


def started(of: int | None = None) -> set[int]:
    """Return all of them."""
    parent, found = of or os.getpid(), set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                facts = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(facts[1]) == parent:
                found.add(int(entry.name))
    return found


async def gone(*pids: int) -> None:
    await eventually(lambda: not any(map(is_alive, pids)), within_s=10)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_modules_worker(valkey):
    async with queue_with_one_child(valkey, handlers.act) as queue:
        yield queue


@pytest.fixture
def worker(the_modules_worker):
    """A queue whose child process may have served other tests: each of those that end it leaves another one."""
    with the_modules_worker.lent() as queue:
        yield queue


def act_in_processes(make_queue: Callable[..., Queue], concurrency: int = 1, **settings: Any) -> Queue:
    queue = make_queue(**settings)
    queue.process(handlers.act, concurrency, executor="process")
    return queue


async def begun(queue: Queue, do: str, **options: Any) -> tuple[Any, dict[str, int]]:
    """Start a job that hangs; return it and what it reported."""
    heard = Recorder(queue, "job progress")
    job = await queue.enqueue({"do": do}, **options)
    ((_, progress),) = await heard.until("job progress", within_s=30)
    return job, progress


async def pid_of(queue: Queue) -> int:
    """Let a child do something; return which it was."""
    pid: int = await (await queue.enqueue({"do": "who"})).result(timeout=PATIENCE_MS)
    return pid


# Being killed.


@on_the_modules_loop
@pytest.mark.parametrize("do", ["hang", "hang_with_family", "hang_in_c"])
async def test_a_timeout_kills_the_child_and_what_it_started(worker, do):
    await pid_of(worker)  # the start of a child is none of the handler's time, but the test's
    heard = Recorder(worker, "failed")
    _, pids = await begun(worker, do, timeout=700)
    ((job, error),) = await heard.until("failed")
    assert isinstance(error, JobTimedOut)
    assert str(error) == f"Job {job.id} timed out (700 ms)"
    await gone(*pids.values())
    assert await pid_of(worker) != pids["pid"]


@on_the_modules_loop
async def test_a_timeout_is_retried_by_policy_in_another_child(worker):
    heard = Recorder(worker, "job progress", "retrying")
    job = await worker.enqueue({"do": "hang"}, timeout=1000, retries=1)
    with pytest.raises(JobFailed, match="timed out"):
        await job.result(timeout=PATIENCE_MS)
    (_, first), (_, second) = await heard.until("job progress", count=2)
    assert first["pid"] != second["pid"]
    assert len(heard.of("retrying")) == 1


@on_the_modules_loop
@pytest.mark.parametrize("do", ["hang", "hang_with_family", "hang_in_c", "cancel_itself"])
async def test_cancelling_a_running_job_kills_its_child(worker, do):
    heard = Recorder(worker, "cancelled", "failed", "succeeded")
    job, pids = await begun(worker, do)
    if do != "cancel_itself":
        assert await worker.cancel_job(job.id) is True
    ((cancelled,),) = await heard.until("cancelled")
    assert cancelled.id == job.id
    await gone(*pids.values())
    assert await pid_of(worker) != pids["pid"]
    await heard.until("succeeded")  # the events channel may bring the result before
    assert [call[0] for call in heard.calls] == ["cancelled", "succeeded"]


async def test_close_kills_what_does_not_end_and_hands_its_job_back(make_queue, redis):
    queue = act_in_processes(make_queue)
    job, pids = await begun(queue, "hang_with_family", retries=2)
    with pytest.raises(TimeoutError, match=r"^Operation timed out\.$"):
        await asyncio.wait_for(queue.close(100), 10)
    assert not is_alive(pids["pid"])
    await gone(pids["family"])  # nobody here can wait for the end of a child's child
    assert await redis.lrange(queue.keys.waiting, 0, -1) == [job.id]
    record = json.loads(await redis.hget(queue.keys.jobs, job.id))
    assert (record["options"]["retries"], record["options"]["stacktraces"]) == (2, [])


async def test_close_lets_a_running_job_end_and_its_child_with_it(make_queue, tmp_path, eventually):
    queue = act_in_processes(make_queue)
    heard = Recorder(queue, "job progress", "succeeded")
    await queue.enqueue({"do": "spin_until_told", "until": str(tmp_path / "go")})
    ((_, reported),) = await heard.until("job progress", within_s=30)
    closing = asyncio.ensure_future(queue.close())
    await eventually(lambda: not queue.is_running())
    assert is_alive(reported["pid"])
    (tmp_path / "go").touch()
    await asyncio.wait_for(closing, 10)
    assert heard.of("succeeded")[0][1] == reported["pid"]
    assert not is_alive(reported["pid"])


# Dying.


@on_the_modules_loop
@pytest.mark.parametrize(
    ("how", "reported"),
    [
        ({"code": 3}, "ended with exit code 3"),
        ({"code": 0}, "ended with exit code 0"),
        ({"signal": signal.SIGSEGV}, "was killed by signal 11 (SIGSEGV)"),
        ({"signal": signal.SIGKILL}, "was killed by signal 9 (SIGKILL)"),
        ({"signal": signal.SIGRTMIN + 1}, f"was killed by signal {signal.SIGRTMIN + 1}"),
    ],
)
async def test_a_child_that_dies_fails_the_attempt_and_says_how(worker, sync_redis, how, reported):
    job = await worker.enqueue({"do": "die", **how})
    with pytest.raises(JobFailed) as failure:
        await job.result(timeout=PATIENCE_MS)
    assert str(failure.value) == f"the child process {reported}"
    (trace,) = json.loads(sync_redis.hget(worker.keys.jobs, job.id))["options"]["stacktraces"]
    assert trace.startswith(f"ChildDied: the child process {reported}\n")
    assert is_alive(await pid_of(worker))


@on_the_modules_loop
async def test_a_dead_child_is_retried_like_any_other_failure(worker):
    job = await worker.enqueue({"do": "die", "code": 1, "once": True}, retries=1, backoff=("fixed", 1))
    assert await job.result(timeout=PATIENCE_MS) == "alive"


@on_the_modules_loop
@pytest.mark.parametrize("do", ["close_descriptors", "write_to_descriptors"])
async def test_a_handler_that_breaks_its_childs_connection_fails_alone(worker, do):
    job = await worker.enqueue({"do": do})
    with pytest.raises(JobFailed, match="^the child process "):
        await job.result(timeout=PATIENCE_MS)
    assert is_alive(await pid_of(worker))


@on_the_modules_loop
async def test_a_job_is_not_charged_for_a_child_that_died_before_it(worker):
    """Whether its death was noticed in time or not."""
    for _ in range(3):
        pid = await pid_of(worker)
        os.kill(pid, signal.SIGKILL)
        assert await pid_of(worker) != pid


async def test_a_child_that_is_gone_takes_no_job_and_says_so(make_queue):
    left: list[ChildProcess] = []
    keeper = GroupKeeper()
    child = ChildProcess(left.append, keeper)
    await child.start(HandlerRef.of(handlers.who))
    await child.kill()
    assert left == [child]
    with pytest.raises(ChildDied, match="gone already") as death:
        await asyncio.wait_for(child.run(make_queue().create_job({})), 5)
    assert not death.value.has_begun
    await keeper.close()


@on_the_modules_loop
async def test_a_suspended_child_is_killed_by_the_jobs_timeout(worker):
    pid = await pid_of(worker)
    os.kill(pid, signal.SIGSTOP)
    job = await worker.enqueue({"do": "who"}, timeout=300)
    with pytest.raises(JobFailed, match="timed out"):
        await job.result(timeout=PATIENCE_MS)
    await gone(pid)


# Starting.


def module(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Any:
    """Write a module that knows whether a child imports it; import it here."""
    name = f"handlers_{folder.name.replace('-', '_')}"
    (folder / f"{name}.py").write_text(f"import os\nIS_CHILD = os.getpid() != {os.getpid()}\n{text}")
    monkeypatch.syspath_prepend(str(folder))
    return __import__(name)


@pytest.mark.parametrize(
    ("broken", "message", "jobs"),
    [
        ("raise LookupError('not here')", "not here", 2),
        ("os._exit(7)", "the child process ended with exit code 7", 2),
        ("raise SystemExit('no more')", "no more", 1),
        ("import nowhere_to_be_found", "No module named 'nowhere_to_be_found'", 1),
        ("handler = 7", "the handler is not a function here, but int", 1),
        ("del handler", "has no attribute 'handler'", 1),
    ],
)
async def test_a_module_no_child_can_import_fails_and_says_why(
    make_queue, tmp_path, monkeypatch, broken, message, jobs
):
    """The next job, too: a child that says why and one that dies show it for all."""
    found = module(tmp_path, monkeypatch, f"def handler(job):\n    return 1\n\nif IS_CHILD:\n    {broken}\n")
    queue = make_queue()
    queue.process(found.handler, executor="process")
    for _ in range(jobs):
        with pytest.raises(JobFailed, match=message):
            await (await queue.enqueue({})).result(timeout=PATIENCE_MS)


async def test_a_child_that_never_gets_ready_fails_the_attempt(make_queue, tmp_path, monkeypatch):
    monkeypatch.setattr("beeq.worker.attempts.processes.child_process.START_TIMEOUT_S", 0.5)
    hang = "import threading\n    threading.Event().wait()"
    found = module(tmp_path, monkeypatch, f"def handler(job):\n    return 1\n\nif IS_CHILD:\n    {hang}\n")
    before = children()
    queue = make_queue()
    queue.process(found.handler, executor="process")
    job = await queue.enqueue({})
    with pytest.raises(JobFailed, match=r"^the child process was not ready within"):
        await job.result(timeout=PATIENCE_MS)
    assert children() == before


async def test_the_start_of_a_child_is_none_of_the_handlers_time(make_queue, tmp_path, monkeypatch):
    slow = "import threading\n    threading.Event().wait(1)"
    found = module(tmp_path, monkeypatch, f"def handler(job):\n    return 1\n\nif IS_CHILD:\n    {slow}\n")
    queue = make_queue()
    queue.process(found.handler, executor="process")
    job = await queue.enqueue({}, timeout=500)
    assert await job.result(timeout=PATIENCE_MS) == 1


async def test_a_child_still_starting_for_a_given_up_job_is_reused(make_queue):
    queue = act_in_processes(make_queue)
    before = children()
    job = await queue.enqueue({"do": "who"})
    await eventually(lambda: children() - before)
    (starting,) = children() - before
    assert await job.cancel() is True
    assert await pid_of(queue) == starting


async def test_close_while_a_child_starts_ends_it(make_queue, redis):
    queue = act_in_processes(make_queue)
    before = children()
    job = await queue.enqueue({"do": "who"})
    await eventually(lambda: children() - before)
    with pytest.raises(TimeoutError):
        await queue.close(1)
    assert children() == before
    assert await redis.lrange(queue.keys.waiting, 0, -1) == [job.id]


# Nothing is left.


async def test_an_idle_child_ends_by_itself_at_close(make_queue, tmp_path, monkeypatch):
    """So it flushes its files, and runs what it registered for its exit."""
    text = f"import atexit\nfrom pathlib import Path\n\ndef handler(job):\n    atexit.register(Path({str(tmp_path / 'bye')!r}).touch)\n"
    queue = make_queue()
    queue.process(module(tmp_path, monkeypatch, text).handler, executor="process")
    await (await queue.enqueue({})).result(timeout=PATIENCE_MS)
    await queue.close()
    assert (tmp_path / "bye").exists()


async def test_a_child_that_does_not_end_at_close_is_killed(make_queue, tmp_path, monkeypatch):
    text = """
import atexit, threading

def handler(job):
    atexit.register(threading.Event().wait)
    threading.Thread(target=threading.Event().wait).start()
    return os.getpid()
"""
    queue = make_queue()
    queue.process(module(tmp_path, monkeypatch, text).handler, executor="process")
    pid = await (await queue.enqueue({})).result(timeout=PATIENCE_MS)
    await asyncio.wait_for(queue.close(), 6)
    assert not is_alive(pid)


async def test_a_child_that_cannot_be_started_fails_the_attempt(make_queue, monkeypatch):
    queue = act_in_processes(make_queue)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    job = await queue.enqueue({"do": "who"}, retries=1, backoff=("fixed", 1))
    with pytest.raises(JobFailed, match="/nowhere/python"):
        await job.result(timeout=PATIENCE_MS)
    monkeypatch.undo()
    assert is_alive(await pid_of(queue))


# Whose children they are.


def test_all_this_works_on_a_loop_in_another_thread(valkey, queue_name):
    failures: list[BaseException] = []

    async def main() -> None:
        async with Queue(queue_name, redis=valkey.url) as queue:
            queue.process(handlers.act, executor="process")
            pid = await pid_of(queue)
            with pytest.raises(JobFailed, match="timed out"):
                await (await queue.enqueue({"do": "hang"}, timeout=300)).result(timeout=PATIENCE_MS)
            assert await pid_of(queue) != pid
            await queue.destroy()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert failures == []


SCRIPT = """
import asyncio, os, sys, threading
from beeq import Queue

queue = Queue({name!r}, redis={url!r})

class Own(Exception):
    pass

@queue.process(executor="process")
def handler(job):
    if job.data == "hang":
        job.report_progress(os.getpid())
        threading.Event().wait()
    if job.data == "fail":
        raise Own("as asked")
    return [job.data, __name__, sys.argv[1:], os.getppid()]

async def main():
    working = asyncio.create_task(queue.run(catch_signals=False))
    queue.on("job progress", lambda _job_id, pid: print(pid, flush=True))
    try:
        print(await (await queue.enqueue("a")).result(20_000), os.getpid(), flush=True)
    except Exception as error:
        print(error, flush=True)
    try:
        await (await queue.enqueue("fail")).result(20_000)
    except Exception as error:
        print(error, flush=True)
    if "hang" in sys.argv:
        await (await queue.enqueue("hang")).result()
    await queue.destroy()
    await queue.close()
    await working

{guard}asyncio.run(main())
"""
GUARD = 'if __name__ == "__main__":\n    '


def script(folder: Path, valkey: Any, queue_name: str, *arguments: str, guard: str = GUARD) -> list[str]:
    text = SCRIPT.format(name=queue_name, url=valkey.url, guard=guard)
    (folder / "main_program.py").write_text(text)
    (folder / "folder").mkdir()
    (folder / "folder" / "__main__.py").write_text(text)
    return [sys.executable, *(arguments or ("main_program.py",))]


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize("arguments", [("main_program.py",), ("-m", "main_program"), ("folder",)])
def test_a_handler_of_the_main_program_runs_too(tmp_path, valkey, queue_name, arguments):
    command = script(tmp_path, valkey, queue_name, *arguments, "x", "y")
    ran = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0
    failed, *trace = ran.stderr.splitlines()  # Python's own log: nobody listens to failures
    assert failed == f"queue {queue_name}: job 2: attempt 1 failed, for good: Own: as asked"
    assert all(line.startswith("    ") for line in trace)
    first, second = ran.stdout.splitlines()
    assert first.startswith("['a', '__mp_main__', ['x', 'y'], ")
    assert first.split(", ")[-1].split("] ")[0] == first.split("] ")[-1]  # its parent is the worker
    assert second == "as asked"


def test_a_main_program_that_works_on_import_is_refused(tmp_path, valkey, queue_name):
    command = script(tmp_path, valkey, queue_name, guard="")
    ran = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0
    assert 'put what starts it below if __name__ == "__main__":' in ran.stdout


def test_a_handler_typed_in_at_a_prompt_is_refused():
    ran = subprocess.run(
        [sys.executable],
        input="from beeq import Queue\ndef f(job): pass\nQueue('q').process(f, executor='process')\n",
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "TypeError: a handler for child processes must be defined in a file" in ran.stderr


async def test_a_child_ends_with_its_connection_without_the_kernel(make_queue):
    """As on systems that do not kill a dead process's children: here the worker lives on."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            importing = "from beeq.worker.attempts.processes.child_main import main"
            boot = f"{importing}; main({theirs.fileno()}, {os.getpid()})"
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", boot),
                env=ENVIRONMENT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        handler = {"module": handlers.__name__, "name": "act"}
        record = {"data": {"do": "hang_with_family"}, "options": {}}
        token = os.urandom(TOKEN_BYTES)
        ours.sendall(encode(token, "load", handler_ref=handler, argv=[], log=None, worker=""))
        ours.sendall(encode(token, "job", dumps(record), attempt=1, id="1", queue="q", strategies=[]))
        decoder, said = Decoder(token), []
        ours.setblocking(False)
        async with asyncio.timeout(30):
            while len(said) < 3:
                part = await asyncio.get_running_loop().sock_recv(ours, 4096)
                assert part, "the child has ended"
                said += decoder.feed(part)
        assert [message.head["kind"] for message in said] == ["ready", "begin", "call"]
        pids = loads(said[2].body[: said[2].head["size"]])[0]
    await gone(pids["pid"], pids["family"])
    assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL


@pytest.mark.no_audit("the worker is killed")
async def test_children_die_with_a_worker_that_is_killed_outright(tmp_path, valkey, queue_name):
    command = script(tmp_path, valkey, queue_name, "main_program.py", "hang")
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, env=ENVIRONMENT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert (await process.stdout.readline()).startswith(b"['a'")
        assert await process.stdout.readline() == b"as asked\n"
        pid = int(await process.stdout.readline())
    assert children(process.pid) == {pid}
    process.kill()
    await process.wait()
    await gone(pid)


APP = """
import os, threading
from pathlib import Path
from beeq import Queue

queue = Queue({name!r})

@queue.process(executor="process")
def handler(job):
    Path("began-" + job.id + ".tmp").write_text(f"{{os.getpid()}} {{os.getppid()}}")
    Path("began-" + job.id + ".tmp").rename("began-" + job.id)
    while not Path("go").exists():
        threading.Event().wait(0.02)
    return job.id
"""


@pytest.fixture
def beeq(tmp_path, valkey, queue_name, warm_start):
    """The command, with an application whose handler waits for a file named ``go``."""
    command = Beeq(tmp_path, warm_start, BEEQ_REDIS_URL=valkey.url)
    command.app(APP.format(name=queue_name))
    yield command
    command.end()


def who_runs(beeq: Beeq, job_id: str) -> tuple[int, int]:
    """Wait until the job runs; return the child and its worker."""
    began = beeq.folder / f"began-{job_id}"
    within_s(began.exists)
    child, worker = began.read_text().split()
    return int(child), int(worker)


@pytest.mark.parametrize("processes", [1, 2])
def test_the_commands_workers_have_children_deaf_to_its_signals(beeq, queue_name, processes):
    """A service manager signals every process; the children go on until the worker has drained."""
    running = beeq.start("worker", queue_name, "--app", "app:queue", "-w", str(processes))
    running.until("Queue worker started")
    ids = [beeq.ok("enqueue", queue_name, f"n:={n}").strip() for n in range(processes)]
    pids = [who_runs(beeq, job_id) for job_id in ids]
    workers = {worker for _, worker in pids}
    assert len(workers) == processes
    assert workers == ({running.pid} if processes == 1 else children(running.pid))
    for child, _ in pids:
        os.kill(child, signal.SIGINT)
        os.kill(child, signal.SIGTERM)
    running.signal(signal.SIGTERM)
    (beeq.folder / "go").touch()
    assert running.ended() == 0
    assert not any(is_alive(child) for child, _ in pids)
    assert beeq.stats(queue_name)["succeeded"] == processes


def test_the_commands_second_signal_kills_and_hands_jobs_back(beeq, queue_name):
    running = beeq.start("worker", queue_name, "--app", "app:queue", "-w", "2")
    running.until("Queue worker started")
    child, _ = who_runs(beeq, beeq.ok("enqueue", queue_name).strip())
    running.signal(signal.SIGTERM)
    running.signal(signal.SIGINT)
    assert running.ended() == 0
    assert not is_alive(child)
    assert beeq.stats(queue_name)["waiting"] == 1


@pytest.mark.no_audit("a worker is killed")
@pytest.mark.parametrize("who", ["parent", "worker"])
def test_children_die_with_the_commands_workers(beeq, queue_name, who):
    running = beeq.start("worker", queue_name, "--app", "app:queue", "-w", "2")
    running.until("Queue worker started")
    child, worker = who_runs(beeq, beeq.ok("enqueue", queue_name).strip())
    if who == "worker":
        os.kill(worker, signal.SIGKILL)
    else:
        running.signal(signal.SIGKILL)
        (beeq.folder / "go").touch()  # a worker without its parent drains
    within_s(lambda: not is_alive(child))
