"""Runs the ``beeq`` command as its users do: as a process, in a folder, with an environment of its own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from tests.support.locks import is_free
from tests.support.warm_start import WarmProcess, WarmStart

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


def eventually(holds: Callable[[], Any], *, within_s: float = PATIENCE_S) -> Any:
    """Return the first truthy value of ``holds()``; fail when the time is over."""
    deadline = time.monotonic() + within_s
    while not (value := holds()):
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)
    return value


#: What each line of a log begins with.
TIME_AND_LEVEL = re.compile(r"[0-9-]{10}T[0-9:]{8}\.[0-9]{3}Z (?:DEBUG|INFO|WARNING|ERROR|CRITICAL) +")


def said(line: str) -> str:
    """Return a line of a command's log without time and level."""
    return TIME_AND_LEVEL.sub("", line, count=1)


class Running:
    """A command under way. Its output is read as it comes."""

    def __init__(self, process: subprocess.Popen[str] | WarmProcess) -> None:
        self.process = process
        self.pid = process.pid
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.seen: list[str] = []
        self._out: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_err, args=(process.stderr,), daemon=True),
            threading.Thread(target=self._read_out, args=(process.stdout,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_err(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_out(self, stream: IO[str]) -> None:
        for line in stream:
            self._out.append(line)

    def first_output(self) -> str:
        """Return the first line of standard output, once it is there."""
        return str(eventually(lambda: self._out and self._out[0]))

    def until(self, text: str, *, within_s: float = PATIENCE_S) -> str:
        """Return the first new line on standard error that has ``text``."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no line with {text!r}: {self.seen}") from None
            assert line is not None, f"ended without a line with {text!r}: {self.seen}"
            self.seen.append(line)
            if text in line:
                return line

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, *, within_s: float = PATIENCE_S) -> int:
        """Wait for the end, and return the exit code."""
        code = self.process.wait(within_s)
        for reader in self._readers:
            reader.join(5)
        while (line := self._lines.get(timeout=5)) is not None:
            self.seen.append(line)
        self._lines.put(None)
        return code

    @property
    def stdout(self) -> str:
        """All of it, once the command has ended."""
        return "".join(self._out)

    @property
    def stderr(self) -> str:
        """What has been seen of it."""
        return "\n".join(self.seen)

    @property
    def said(self) -> list[str]:
        """The lines seen of its log, without time and level."""
        return [said(line) for line in self.seen]

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                for reader in self._readers:
                    reader.join(5)
                stream.close()


def is_pending(pid: int, number: int) -> bool:
    """Return whether the process has yet to take the signal."""
    with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 - a process, no file
        masks = [int(line.split()[1], 16) for line in file if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask & 1 << (number - 1) for mask in masks)


class Beeq:
    """Runs ``beeq`` in ``folder``; ``environment`` is all it knows of Redis.

    With ``warm``, from a process that has done the imports (see there what that leaves the same).
    """

    def __init__(self, folder: Path, warm: WarmStart | None = None, /, **environment: str) -> None:
        self.folder = folder
        self._warm = warm
        known = ("BEEQ_", "REDIS_", "MONGODB_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(known)}
        path = os.pathsep.join((str(ROOT), str(ROOT / "cli")))
        self.environment = {**inherited, "PYTHONPATH": path, **environment}
        self._running: list[Running] = []

    def cold(self) -> Beeq:
        """From now on, start each command in a new interpreter; return this."""
        self._warm = None
        return self

    @property
    def python(self) -> tuple[str, ...]:
        """Replaces ``python`` in a command line that a test runs by other means."""
        if self._warm is not None and self._warm.takes(self.environment):
            return self._warm.python
        return (sys.executable,)

    def start(self, *arguments: str, **environment: str) -> Running:
        """Start the command in a process group of its own."""
        return self.start_module("beeq_cli", *arguments, **environment)

    def start_module(
        self, module: str, *arguments: str, through: Sequence[str] = (), **environment: str
    ) -> Running:
        """Start a module of Python in a process group of its own, ``through`` a command if there is one."""
        whole = {**self.environment, **environment}
        process: subprocess.Popen[str] | WarmProcess
        if not through and self._warm is not None and self._warm.takes(whole):
            process = self._warm.start(("-m", module, *arguments), self.folder, whole)
            self._running.append(Running(process))
            return self._running[-1]
        process = subprocess.Popen(
            [*through, sys.executable, "-m", module, *arguments],
            cwd=self.folder,
            env=whole,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._running.append(Running(process))
        return self._running[-1]

    def run(
        self, *arguments: str, stdin: str = "", timeout_s: float = 60, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        whole = {**self.environment, **environment}
        if self._warm is not None and self._warm.takes(whole):
            process = self._warm.start(("-m", "beeq_cli", *arguments), self.folder, whole)
            try:
                stdout, stderr = process.communicate(stdin, timeout_s)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                raise
            return subprocess.CompletedProcess(process.args, process.wait(), stdout, stderr)
        return subprocess.run(
            [sys.executable, "-m", "beeq_cli", *arguments],
            cwd=self.folder,
            env=whole,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def ok(self, *arguments: str, **environment: str) -> str:
        """Run the command, which must succeed and say nothing, and return its output."""
        ran = self.run(*arguments, stdin="", timeout_s=60, **environment)
        assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr
        return ran.stdout

    def stats(self, queue_name: str) -> dict[str, Any]:
        numbers: dict[str, Any] = json.loads(self.ok("stats", "--json", queue_name))[queue_name]
        return numbers

    def app(self, text: str) -> None:
        """Write ``app.py`` into the folder."""
        (self.folder / "app.py").write_text(text)

    def end(self) -> None:
        """Kill what still runs, and wait for the embedded server's end."""
        for running in self._running:
            running.kill()
        eventually(lambda: all(map(is_free, self.folder.glob(".beeq/*.lock"))))
