"""Handlers that make copies of their child process, and what these do to its connection to the worker."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import pickle
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beeq import JobLost
from beeq.worker.attempts.processes.child_main import WorkerLink
from beeq.worker.attempts.processes.ipc import encode

BOUND_S = 30.0


def act(job):
    """Do what ``job.data["do"]`` says; return the process's id and what that returns."""
    return [os.getpid(), ACTS[job.data["do"]](job)]


def the_link() -> WorkerLink:
    """Return the process's link to its worker, as a hostile handler would find it."""
    (found,) = [thing for thing in gc.get_objects() if type(thing) is WorkerLink]
    return found


def the_descriptor() -> int:
    (found,) = [fd for fd in range(3, 64) if is_socket(fd)]
    return found


def the_attempt(job) -> int:
    """Return which of the process's attempts runs, as its messages have it."""
    number: int = job.asynchronous.owner._call.__self__._number
    return number


def is_socket(fd: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except OSError:
        return False


def exit_code_of(pid: int) -> int:
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


# Copies that Python makes.


def report_in_both(job):
    """Report from a copy, and then from the original."""
    pid = os.fork()
    if not pid:
        job.report_progress("copy")
        os._exit(0)  # not reached
    code = exit_code_of(pid)
    job.report_progress("original")
    return [code, job.progress]


def come_back_from_copy(job):
    """Come back twice: from the copy as the job says."""
    pid = os.fork()
    if pid:
        return exit_code_of(pid)
    match job.data["how"]:
        case "raises":
            raise ValueError("from the copy")
        case "exits":
            sys.exit(7)
        case "leaves":
            os._exit(8)
        case "closes all":
            os.closerange(3, 256)
        case "writes":
            os.write(job.data["fd"], b"anything")
    return "copy"


def report_while_copies_do(job):
    """Let copies report all the time while the original does, from threads that hold its locks."""
    over = threading.Event()

    def report() -> None:
        while not over.is_set():
            job.report_progress("thread")

    threads = [threading.Thread(target=report) for _ in range(3)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(20):
        pid = os.fork()
        if not pid:
            try:
                job.report_progress("copy")
            finally:
                os._exit(1)
        codes.append(exit_code_of(pid))
    over.set()
    for thread in threads:
        thread.join(BOUND_S)
    return [sorted(set(codes)), job.report_progress("last")]


def leave_copy_behind(_job):
    """Leave a copy that goes on, as a program that forks into the background does."""
    pid = os.fork()
    if not pid:
        threading.Event().wait(BOUND_S)
        os._exit(0)
    return pid


def report_elsewhere(job=None, method=""):
    """Report in a process of ``multiprocessing``; a fork's has the job."""
    if method == "fork":
        job.report_progress("copy")
    return 7


def use_multiprocessing(job):
    method = job.data["method"]
    context = multiprocessing.get_context(method)
    process: Any = context.Process(target=report_elsewhere, args=(job if method == "fork" else None, method))
    process.start()
    process.join(BOUND_S)
    job.report_progress("original")
    with context.Pool(2) as pool:
        return [process.exitcode, pool.map(abs, [-1, -2])]


def terminate_a_copy(job):
    """Return how a copy has ended that was asked to end as soon as it was there."""
    process = multiprocessing.get_context("fork").Process(target=threading.Event().wait)
    process.start()
    process.terminate()
    process.join(BOUND_S)
    return process.exitcode


def fork_and_exec(job):
    """Return what a program sees of our descriptors."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(theirs, 1)
        os.execv("/bin/ls", ["ls", "/proc/self/fd"])
    os.close(theirs)
    with os.fdopen(ours) as output:
        found = output.read().split()
    job.report_progress("original")
    return [exit_code_of(pid), len(found)]


# Copies that Python's hooks do not see, as C code makes them.


def in_unnoticed_copy(act: Callable[[], Any]) -> None:
    """Act in a copy, and wait for its end. (PyDLL: the copy has the interpreter's lock.)"""
    pid = ctypes.PyDLL(None).fork()
    if pid:
        exit_code_of(pid)
        return
    try:
        act()
    finally:
        os._exit(0)


def report_in_unnoticed_copy(job):
    in_unnoticed_copy(lambda: job.report_progress("copy"))
    return job.report_progress("original") is not None


def write_half_a_message(job):
    link, fd = the_link(), the_descriptor()
    message = encode(link.token, "call", b"x" * 5000, pid=os.getpid(), attempt=the_attempt(job), number=10**6)
    in_unnoticed_copy(lambda: os.write(fd, message[: job.data["bytes"]]))
    if job.data.get("reports"):
        job.report_progress("original")
    return "not heard"


def end_in_unnoticed_copy(job):
    """Let the copy send a whole, well-formed end."""
    link, fd = the_link(), the_descriptor()
    facts = {"attempt": the_attempt(job), "is_error": False, "size": 6}
    in_unnoticed_copy(lambda: os.write(fd, encode(link.token, "end", b'"copy"', pid=os.getpid(), **facts)))
    return "original"


# What the handler's own process sends besides.


def end_twice(job):
    """Send an end ourselves: the second, beeq's own, belongs to nothing."""
    the_link().send("end", b'"first"', attempt=the_attempt(job), is_error=False, size=7)
    return "second"


def end_later(job):
    """Send an end when the job is over, and the child idle or at its next one."""
    attempt = the_attempt(job)

    def end() -> None:
        threading.Event().wait(0.2)
        the_link().send("end", b'"late"', attempt=attempt, is_error=False, size=6)

    threading.Thread(target=end, daemon=True).start()
    return "in time"


def send_for_another_attempt(job):
    link = the_link()
    link.send("end", b'"wrong"', attempt=the_attempt(job) + 98, is_error=False, size=7)
    link.send("begin", attempt=0)
    link.send("call", b"[1]", attempt=0, number=10**6, command="report_progress", size=3)
    job.report_progress("right")
    return "right"


def say_what_is_not_said(job):
    link = the_link()
    for kind, facts in job.data["messages"]:
        own = {"attempt": the_attempt(job)} if "attempt" in facts else {}
        link.send(kind, b"{}", **facts | own)
    threading.Event().wait(BOUND_S)


class Executed:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (Path(self._path),)


def send_pickles(job):
    text = pickle.dumps(Executed(job.data["path"]))
    the_link().send("end", text, attempt=the_attempt(job), is_error=job.data["is_error"], size=len(text))
    threading.Event().wait(BOUND_S)


_lost: list[str] = []


def go_on_reporting(job):
    """Leave a thread that reports until it is refused; say how those before us were."""
    lost_before = list(_lost)

    def report() -> None:
        try:
            while True:
                job.report_progress("late")
        except JobLost as error:
            _lost.append(str(error.job_id))

    thread = threading.Thread(target=report)
    thread.start()
    return lost_before


ACTS: dict[str, Callable[[Any], Any]] = {
    function.__name__: function
    for function in (
        report_in_both,
        come_back_from_copy,
        report_while_copies_do,
        terminate_a_copy,
        leave_copy_behind,
        use_multiprocessing,
        fork_and_exec,
        report_in_unnoticed_copy,
        write_half_a_message,
        end_in_unnoticed_copy,
        end_twice,
        end_later,
        send_for_another_attempt,
        say_what_is_not_said,
        send_pickles,
        go_on_reporting,
    )
}
