"""Handlers that start others in each way; they print who these are, and hang."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

BOUND_S = 60.0
SLEEP = ("sleep", str(int(BOUND_S)))


def act(job):
    """Start those that the job wants, print the family, report it, and hang."""
    family = STARTS[job.data["start"]]()
    print(json.dumps({"child": os.getpid(), "family": family}), flush=True)  # noqa: T201 - the test reads it
    job.report_progress({"child": os.getpid(), "family": family})
    if job.data.get("in_c"):
        ctypes.PyDLL(None).sleep(int(BOUND_S))  # no thread of the interpreter runs meanwhile
    threading.Event().wait(BOUND_S)


def program(**options: Any) -> list[int]:
    return [subprocess.Popen(SLEEP, **options).pid]


def deaf_program() -> list[int]:
    """Start one that ignores every signal that it may ignore."""
    text = "import signal, time\nfor n in range(1, 32):\n    n in (9, 19, 17) or signal.signal(n, signal.SIG_IGN)\nprint(1, flush=True)\ntime.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return [process.pid]


def shell_with_jobs() -> list[int]:
    """Start a shell that gives each of its programs a group of its own."""
    script = f"set -m; {' '.join(SLEEP)} & echo $!; wait"
    shell = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE)
    assert shell.stdout is not None
    return [shell.pid, int(shell.stdout.readline())]


def orphan() -> list[int]:
    """Start one whose parent ends at once."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        grandchild = os.fork()
        if not grandchild:
            time.sleep(BOUND_S)
            os._exit(0)
        os.write(writing, b"%d" % grandchild)
        os._exit(0)
    os.waitpid(pid, 0)
    return [int(os.read(reading, 20))]


def stopped() -> list[int]:
    pids = program()
    os.kill(pids[0], signal.SIGSTOP)
    return pids


def process_of(method: str) -> list[int]:
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=time.sleep, args=(BOUND_S,))
    process.start()
    return [process.pid]


STARTS: dict[str, Callable[[], list[int]]] = {
    "nobody": list,
    "program": program,
    "program in its own group": lambda: program(process_group=0),
    "program in its own session": lambda: program(start_new_session=True, stdout=subprocess.DEVNULL),
    "deaf program": deaf_program,
    "shell with jobs": shell_with_jobs,
    "orphan": orphan,
    "stopped": stopped,
    "fork": lambda: process_of("fork"),
    "spawn": lambda: process_of("spawn"),
    "forkserver": lambda: process_of("forkserver"),
}
