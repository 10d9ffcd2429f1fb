"""Starts ``python …`` from a process that has the imports behind it: by a fork.

What runs is the same program with the same arguments, environment, folder and streams, in a process of its own, and
its exit code is its own; only its imports were done before. Nothing else is shared: the process that forks has one
thread, has opened nothing, and has run nothing of beeq's. What depends on the interpreter's own start (options,
``PYTHON…``, the locale, what ``/proc`` shows of it) needs a real one.

``WarmStart.start`` starts a program in a session of its own, and shows it as a process. What a test starts by other
means, in a shell or at a terminal, begins with ``WarmStart.python``: ``warm_program.py`` has the program started with
its own arguments, environment, folder and streams, hands SIGINT and SIGTERM on, waits for its end, and ends as it
did; to kill that is to kill the program.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import gc
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
_PROGRAM = Path(__file__).with_name("warm_program.py")

#: What most commands import sooner or later.
_IMPORTED = (
    "beeq",
    "beeq.sync",
    "beeq_cli.main",
    "beeq_cli.commands.enqueue",
    "beeq_cli.commands.mirror",
    "beeq_cli.commands.stats",
    "beeq_cli.commands.worker",
    "beeq_cli.commands.web",
    "beeq_cli.commands.operate.acting",
    "beeq_cli.commands.operate.listing",
    "beeq.embedded",
    "beeq.mirror.mirror",
    "beeq.processors",
    "httpx",
    "pymongo",
    "starlette.applications",
    "uvicorn",
    "uvloop",
)

#: Variables that Python or its libraries read as they start.
_AT_THE_START = ("PYTHON", "LC_", "LANG", "TZ", "MALLOC", "LD_")


def _of_the_start(environment: dict[str, str]) -> dict[str, str]:
    """Return these variables without ``PYTHONPATH``, which a program gets as its own."""
    found = {name: value for name, value in environment.items() if name.startswith(_AT_THE_START)}
    found.pop("PYTHONPATH", None)
    return found


class WarmProcess:
    """A started program, as ``subprocess.Popen`` shows one, as far as these tests ask."""

    def __init__(self, pid: int, asked: socket.socket, streams: tuple[IO[str], IO[str], IO[str]]) -> None:
        self.pid = pid
        self.stdin, self.stdout, self.stderr = streams
        self.returncode: int | None = None
        self.args: list[str] = []
        self._asked = asked
        self._lock = threading.Lock()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once the program has ended; raise TimeoutExpired when the time is over."""
        with self._lock:
            if self.returncode is None:
                self._asked.settimeout(timeout)
                try:
                    answer = self._asked.recv(4)
                except (TimeoutError, BlockingIOError):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
                self._asked.close()
                self.returncode = struct.unpack("!i", answer)[0]
            return self.returncode

    def poll(self) -> int | None:
        """Return the exit code, or None where it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def communicate(self, text: str | None, timeout: float) -> tuple[str, str]:
        """Write ``text``, and return all that the program writes; raise TimeoutExpired when the time is over."""
        deadline = time.monotonic() + timeout
        said = ["", ""]

        def read(index: int, stream: IO[str]) -> None:
            with stream:
                said[index] = stream.read()

        def write() -> None:
            with contextlib.suppress(BrokenPipeError), self.stdin:
                self.stdin.write(text or "")

        threads = [
            threading.Thread(target=read, args=(0, self.stdout), daemon=True),
            threading.Thread(target=read, args=(1, self.stderr), daemon=True),
            threading.Thread(target=write, daemon=True),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0, deadline - time.monotonic()))
            if thread.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(max(0.01, deadline - time.monotonic()))
        return said[0], said[1]

    def send_signal(self, number: int) -> None:
        """Send a signal; the dead get none."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class WarmStart:
    """The process that forks; it ends with the one that has made this object."""

    def __init__(self) -> None:
        self._environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "cli"))),
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        name = f"beeq-tests-{os.getpid()}-{ours.fileno()}"
        listener.bind(f"\0{name}")
        listener.listen()
        with theirs, listener:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tests.support.warm_start",
                    str(theirs.fileno()),
                    str(listener.fileno()),
                ],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # no terminal, as the programs' own
                pass_fds=[theirs.fileno(), listener.fileno()],
            )
        #: Replaces ``sys.executable`` in a command line.
        self.python = (sys.executable, "-I", "-S", str(_PROGRAM), name)
        self._line = ours
        self._lock = threading.Lock()

    def takes(self, environment: dict[str, str]) -> bool:
        """Return whether a program with this environment would find the interpreter that it expects."""
        return _of_the_start(environment) == _of_the_start(self._environment)

    def start(self, arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> WarmProcess:
        """Start ``python`` with these arguments in a session of its own, with pipes for its streams.

        Args:
            arguments: ``-m``, a module, and what it is given; or ``-c`` and a text, or a file, likewise.
            folder: to start it in.
            environment: all of it. Of what Python reads as it starts, only ``PYTHONPATH`` may be other than here.
        """
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        mine = [pipes[0][1], pipes[1][0], pipes[2][0]]
        asked, asks = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        order = json.dumps([list(arguments), str(folder), environment]).encode(errors="surrogatepass")
        # An order may be longer than a message: it goes by a file that has no name.
        text = os.memfd_create("order")
        os.write(text, order)
        with self._lock:
            fds = array.array("i", [text, asks.fileno(), *theirs])
            self._line.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        for fd in (text, *theirs):
            os.close(fd)
        asks.close()
        pid = struct.unpack("!i", asked.recv(4))[0]
        streams = (os.fdopen(mine[0], "w"), os.fdopen(mine[1]), os.fdopen(mine[2]))
        process = WarmProcess(pid, asked, streams)
        process.args = ["python", *arguments]
        return process

    def close(self) -> None:
        """End the process that forks; what it has started goes on."""
        self._line.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


class _Children:
    """The programs that were forked here, each with the pipe for its exit code."""

    def __init__(self) -> None:
        self._lines: dict[int, tuple[int, socket.socket]] = {}  # by pidfd: pid, and where to tell
        self._askers: dict[
            int, int
        ] = {}  # by the line's own descriptor: pids that end with who asked for them

    def add(self, pid: int, line: socket.socket, *, dies_with_asking: bool) -> None:
        """Tell the pid, and later the exit code."""
        with contextlib.suppress(BrokenPipeError):
            line.send(struct.pack("!i", pid))
        self._lines[os.pidfd_open(pid)] = pid, line
        if dies_with_asking:
            self._askers[line.fileno()] = pid

    def watched(self) -> list[int]:
        """Return the descriptors that tell of an end."""
        return [*self._lines, *self._askers]

    def leave(self) -> None:
        """Close all of it: this is one of the programs."""
        for pidfd, (_, line) in self._lines.items():
            os.close(pidfd)
            line.close()

    def see(self, ready: int) -> None:
        """Tell of a program that has ended, or end one for which nobody asks any more."""
        if ready in self._askers:
            os.kill(self._askers.pop(ready), signal.SIGKILL)
        elif ready in self._lines:
            pid, line = self._lines.pop(ready)
            os.close(ready)
            self._askers.pop(line.fileno(), None)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            with contextlib.suppress(BrokenPipeError), line:
                line.send(struct.pack("!i", code))


def _serve(line: socket.socket, listener: socket.socket) -> None:
    """Fork a program for each order, until the other end is closed."""
    for module in _IMPORTED:
        import_module(module)
    gc.collect()
    gc.freeze()  # what is imported is not looked at, and so not copied, in each program
    children = _Children()
    while True:
        own = [line.fileno(), listener.fileno()]
        ready, _, _ = select.select([*own, *children.watched()], [], [])
        for descriptor in ready:
            children.see(descriptor)
        if listener.fileno() in ready:
            with listener.accept()[0] as asking:
                fds = _received(asking)
            if len(fds) == _FDS:
                _fork(fds, children, [line, listener], dies_with_asking=True)
        if line.fileno() in ready:
            fds = _received(line)
            if not fds:
                return
            _fork(fds, children, [line, listener], dies_with_asking=False)


#: An order, the pipe for reports on the program, and its streams.
_FDS = 5


def _received(line: socket.socket) -> list[int]:
    _, ancillary, _, _ = line.recvmsg(1, socket.CMSG_SPACE(_FDS * 4))
    return array.array("i", ancillary[0][2]).tolist() if ancillary else []


def _fork(fds: list[int], children: _Children, own: list[socket.socket], *, dies_with_asking: bool) -> None:
    """Start the program that is ordered in these descriptors; it gets nothing of what is this process's ``own``."""
    text, asks, *streams = fds
    pid = os.fork()
    if pid == 0:
        children.leave()
        for each in own:
            each.close()
        os.close(asks)
        _become(text, streams)
    for fd in (text, *streams):
        os.close(fd)
    children.add(pid, socket.socket(fileno=asks), dies_with_asking=dies_with_asking)


def _become(text: int, streams: list[int]) -> NoReturn:
    """Be the program: its session, folder, environment, streams and ``__main__``."""
    os.setsid()
    with os.fdopen(text, "rb") as file:
        file.seek(0)
        arguments, folder, environment = json.loads(file.read().decode(errors="surrogatepass"))
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
        os.close(fd)
    if os.isatty(1):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # as Python does when it starts
    os.chdir(folder)
    own = len(os.environ["PYTHONPATH"].split(os.pathsep))
    os.environ.clear()
    os.environ.update(environment)
    path = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[: 1 + own] = [folder, *path]
    code = _ran(arguments)
    if isinstance(code, str):
        sys.stderr.write(code + "\n")
        code = 1
    # As multiprocessing ends its forks. To take the modules apart would copy all that was imported, for nothing.
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the program's threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError):
            pass  # there is none, or it is closed
        except OSError:
            code = 120  # Python's own for output that nobody took
    os._exit(code or 0)


def _ran(arguments: list[str]) -> Any:
    first, *rest = arguments
    try:
        if first == "-m":
            sys.argv[:] = ["-m", *rest[1:]]
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            _run_as_main(*((rest[0], "") if first == "-c" else ("", first)), arguments=rest)
    except SystemExit as end:
        return end.code
    return 0


def _run_as_main(source: str, path: str, *, arguments: list[str]) -> None:
    """Run a text, or the file at ``path``, as the program."""
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if path:
        main.__file__ = path
        sys.argv[:], sys.path[0] = [path, *arguments], str(Path(path).resolve().parent)
        source = Path(path).read_text(encoding="utf-8")
    else:
        sys.argv[:], sys.path[0] = ["-c", *arguments[1:]], ""
    exec(compile(source, path or "<string>", "exec"), main.__dict__)


if __name__ == "__main__":
    _serve(*(socket.socket(fileno=int(fd)) for fd in sys.argv[1:]))
