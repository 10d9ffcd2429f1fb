"""Handlers that run in child processes; what a test wants of them is in the job's data."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from beeq import Discard, JobLost, Retry

BOUND_S = 60.0


def knows(job):
    """Return a variable of the handler's environment."""
    return os.environ.get(job.data["name"])


def act(job):
    """Do what ``job.data["do"]`` says."""
    return ACTS[job.data["do"]](job)


def triple(factor, job):
    return job.data["n"] * factor


class Adder:
    """A callable that is not a function."""

    def __init__(self, summand):
        self.summand = summand

    def __call__(self, job):
        return job.data["n"] + self.summand

    def add(self, job):
        return job.data["n"] + self.summand


def shown(function):
    """Decorate as decorators do."""

    @functools.wraps(function)
    def wrapper(job):
        return ["wrapped", function(job)]

    return wrapper


@shown
def decorated(job):
    return job.data["n"]


async def coroutine(_job):
    """No handler for a process."""


def hang(job):
    """Say who we are, and never return."""
    job.report_progress({"pid": os.getpid()})
    threading.Event().wait(BOUND_S)


def hang_with_family(job):
    """The same, with a program started."""
    with subprocess.Popen(["sleep", str(BOUND_S)]) as family:
        job.report_progress({"pid": os.getpid(), "family": family.pid})
        threading.Event().wait(BOUND_S)


def hang_in_c(job):
    """The same, holding Python's own lock: nothing written in Python runs here meanwhile."""
    job.report_progress({"pid": os.getpid()})
    ctypes.PyDLL(None).sleep(int(BOUND_S))


def spin_until_told(job):
    """Use a core until the file is there."""
    job.report_progress({"pid": os.getpid()})
    over = time.monotonic() + BOUND_S
    while not Path(job.data["until"]).exists():
        assert time.monotonic() < over
    return os.getpid()


def describe(job):
    return {
        "kind": type(job).__name__,
        "id": job.id,
        "data": job.data,
        "options": job.options,
        "status": job.status,
        "progress": job.progress,
        "memory": job.memory,
        "shown": repr(job),
    }


def change(job):
    job.data["seen"] = True
    job.retries(0)
    job.options["mine"] = {"a": 1}
    if job.data.get("fails"):
        raise ValueError("changed and failed")


def replace_data(job):
    job.data = ["new"]
    return job.report_progress(1)


def report(job):
    heard = [job.report_progress(value) for value in job.data["values"]]
    return [heard, job.progress]


def remember(job):
    if not job.memory:
        job.remember(order="order-1")
        job.remember(asked=True)
        if job.data.get("dies"):
            os._exit(1)
        raise ValueError("once more")
    return job.memory


def look(job):
    return {name: job.is_in_set(name) for name in ("active", "waiting", "succeeded")}


def lose(job):
    job.remove()
    try:
        job.remember(order=1)
    except JobLost as error:
        job.report_progress({"lost": [str(error), error.job_id]})
        raise


def cancel_itself(job):
    job.report_progress({"pid": os.getpid()})
    job.cancel()
    threading.Event().wait(BOUND_S)


REFUSALS: dict[str, Callable[[Any], Any]] = {
    "no progress": lambda job: job.report_progress(None),
    "progress is no JSON": lambda job: job.report_progress(object()),
    "fact is no JSON": lambda job: job.remember(fact=object()),
    "no such set": lambda job: job.is_in_set("nowhere"),
    "save": lambda job: job.save(),
    "listen": lambda job: job.on("progress", print),
    "bad retries": lambda job: job.retries(-1),
    "bad strategy": lambda job: job.backoff("nonsense", 1),
    "result in vain": lambda job: job.result(timeout=10),
    "asynchronous": lambda job: asyncio.run(job.asynchronous.report_progress(None)),
}


def refuse(job):
    """Return how each of the refused moves was refused."""
    kinds = {}
    for name, move in REFUSALS.items():
        try:
            move(job)
        except Exception as error:  # noqa: BLE001 - the test asks which one it is
            kinds[name] = f"{type(error).__name__}: {error}"
    job.backoff("own", 5)
    return kinds


class Odd(Exception):
    """Cannot be pickled, nor constructed again."""

    def __init__(self, one, two):
        super().__init__(f"odd {one}")
        self.lock = threading.Lock()
        self.reason = two


class Broken(Exception):
    def __str__(self):
        raise RuntimeError("no text")

    def __reduce__(self):
        raise RuntimeError("no pickle")


class Busy(Retry):
    pass


ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("boom"),
    "empty": lambda: ValueError(""),
    "KeyError": lambda: KeyError("k"),
    "OSError": lambda: FileNotFoundError(2, "No such file", "x"),
    "UnicodeDecodeError": lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    "ExceptionGroup": lambda: ExceptionGroup("many", [ValueError("one")]),
    "surrogate": lambda: ValueError("half \udc00"),
    "Odd": lambda: Odd("one", 2),
    "Broken": Broken,
    "SystemExit": lambda: SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt,
    "CancelledError": asyncio.CancelledError,
    "StopIteration": lambda: StopIteration("stop"),
    "GeneratorExit": GeneratorExit,
    "long": lambda: ValueError("x" * 1_000_000),
}


def fail(job):
    error = ERRORS[job.data["error"]]()
    raise error


def fail_deep_down(_job):
    def innermost():
        raise ValueError("down here")

    try:
        innermost()
    except ValueError as error:
        raise RuntimeError("up here") from error


def retry_later(job):
    if job.options["retries"] == 1:
        raise Busy(after=timedelta(milliseconds=60_000) if job.data["long"] else 1, reason="not now")
    return "later"


def discard(_job):
    raise Discard("hopeless")


def return_something_odd(job):
    return {"object": object(), "bytes": b"x", "set": {1}, "coroutine": None}[job.data["kind"]]


def spoil_data(job):
    job.data["spoilt"] = object()
    if job.data.get("fails"):
        raise ValueError("spoilt and failed")


def spoil_options(job):
    job.asynchronous.options = job.data["options"]
    return "done"


def die(job):
    """Die in the given way: by an exit code, or by a signal."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if job.data.get("once") and job.options["retries"] == 0:
        return "alive"
    if "code" in job.data:
        os._exit(job.data["code"])
    os.kill(os.getpid(), job.data["signal"])
    threading.Event().wait(BOUND_S)
    return None


def print_much(job):
    for n in range(job.data["lines"]):
        print(f"line {n} of {job.id}")  # noqa: T201 - what this is about
        print(f"error line {n}", file=sys.stderr)  # noqa: T201 - likewise
    os.write(1, b"raw bytes of %b\n" % job.id.encode())
    return os.isatty(0) or sys.stdin.read()


def echo(job):
    return job.data["value"]


def who(_job):
    return os.getpid()


def descriptors(_job):
    """Return what is open here besides the standard three."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            found.append((int(entry.name), str(entry.readlink())))
    return [link.partition(":")[0] for fd, link in found if fd > 2]


def enqueue_another(job):
    from beeq.sync import Queue  # here: each child would import it, for no other act

    with Queue(job.data["name"], redis=job.data["url"]) as queue:
        return queue.enqueue({"do": "who"}).result(timeout=10_000)


def say_and_end(job):
    """Return once as many of us have begun as the job says."""
    (Path(job.data["folder"]) / f"{job.id}-{os.getpid()}").touch()
    over = time.monotonic() + BOUND_S
    while len(list(Path(job.data["folder"]).iterdir())) < job.data["together"]:
        assert time.monotonic() < over
        threading.Event().wait(0.01)
    return os.getpid()


def fork(_job):
    """Return twice, like code that forks and does not exit."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        return ["original", os.waitstatus_to_exitcode(status)]
    return "copy"


def use_multiprocessing(_job):
    answers: Any = multiprocessing.get_context("spawn").SimpleQueue()
    process = multiprocessing.get_context("spawn").Process(target=answers.put, args=(7,))
    process.start()
    answer = answers.get()
    process.join(BOUND_S)
    answers.close()
    return [answer, process.exitcode]


def stop_a_program(_job):
    """Return how a program ends after SIGTERM."""
    with subprocess.Popen(["sleep", str(BOUND_S)]) as program:
        program.terminate()
        return program.wait(BOUND_S)


def take_signals(_job):
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)
    return "unimpressed"


def close_descriptors(_job):
    os.closerange(3, 256)
    return "all closed"


def write_to_descriptors(_job):
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(fd, b"not a message at all")
    threading.Event().wait(BOUND_S)


_left_behind: list[Any] = []


def leave_a_thread_behind(job):
    """Leave a thread that moves the job once it is over; its fate is what the next job returns."""
    if _left_behind:
        earlier, its_fates, its_go = _left_behind
        its_go.set()
        earlier.join(BOUND_S)
        return its_fates
    fates: list[str] = []
    go = threading.Event()

    def move():
        go.wait(BOUND_S)
        try:
            job.report_progress(50)
        except JobLost as error:
            fates.append(str(error))

    thread = threading.Thread(target=move, daemon=True)
    thread.start()
    _left_behind.extend((thread, fates, go))
    return "left"


def report_from_threads(job):
    """Move the job from many threads at once; return what the moves returned."""
    heard: list[Any] = []
    threads = [
        threading.Thread(
            target=lambda n=n: heard.append([n, job.report_progress(n), job.is_in_set("active")])
        )
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_S)
    return sorted(heard)


ACTS: dict[str, Callable[[Any], Any]] = {
    function.__name__: function
    for function in (
        hang,
        hang_with_family,
        hang_in_c,
        spin_until_told,
        describe,
        change,
        replace_data,
        report,
        remember,
        look,
        lose,
        cancel_itself,
        refuse,
        fail,
        fail_deep_down,
        retry_later,
        discard,
        return_something_odd,
        spoil_data,
        spoil_options,
        die,
        print_much,
        echo,
        who,
        descriptors,
        enqueue_another,
        say_and_end,
        fork,
        use_multiprocessing,
        stop_a_program,
        take_signals,
        close_descriptors,
        write_to_descriptors,
        leave_a_thread_behind,
        report_from_threads,
    )
}
