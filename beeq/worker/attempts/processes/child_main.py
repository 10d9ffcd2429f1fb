"""The main program of a worker's child process: takes a job, calls the handler, reports its end; repeats.

Connects to nothing but the worker's socket. The handler gets the same ``BlockingJob`` as in a thread,
around a ``Job`` whose owner is a ``RemoteQueue``: it has the worker execute each call.

A handler may fork. The fork has no worker: the link is closed there at once, commands of the job are refused,
and the fork ends where the handler returns. If the fork still uses the descriptor, the worker notices
(``ipc.py``).

Ends with its worker: on Linux the kernel kills it, elsewhere it ends with the socket. Standard output and
error are the worker's own.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import os
import queue
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Collection, Coroutine
from typing import Any, NoReturn, TypeVar, cast

from beeq.blocking import BlockingJob, Portal
from beeq.emitter import Emitter
from beeq.errors import Discard, JobLost, text_of
from beeq.job import Job, SomeJob
from beeq.logs.records import running_job
from beeq.logs.setup import LogSetup, configure_child
from beeq.process import now_ms
from beeq.protocol.codec import decode_record, dumps, loads
from beeq.settings import Duration, milliseconds
from beeq.worker.attempts.processes.handler_ref import HandlerRef, load
from beeq.worker.attempts.processes.ipc import Decoder, Message, encode, error_from_json, error_to_json

T = TypeVar("T")

_CHUNK_BYTES = 256 * 1024
#: How long the process may take to end by itself once the worker has hung up.
_END_S = 1.0
_PR_SET_PDEATHSIG = 1


class WorkerLink:
    """The socket to the worker; a thread of its own reads it.

    ``jobs`` yields messages of the kinds ``load`` and ``job``, then None when the worker has hung up.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._pid = os.getpid()
        self._decoder = Decoder()
        self._sending = threading.Lock()
        self._numbers = itertools.count(1)
        self._callers: dict[int, queue.SimpleQueue[Message]] = {}
        self.jobs: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        # The fork's messages would mix with ours, and its descriptor would hide this process's end.
        os.register_at_fork(after_in_child=connection.close)
        threading.Thread(target=self._listen, name="beeq-worker-link", daemon=True).start()

    def refuse_in_copy(self) -> None:
        """Raise RuntimeError in a fork of the process; call it before anything else."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this process is a copy that the handler forked: the job is the original's, and its"
                " commands work there only"
            )

    def send(self, kind: str, body: bytes = b"", **facts: Any) -> None:
        """Send a message; wait until the worker has taken it. Raises RuntimeError in a fork."""
        self.refuse_in_copy()
        with self._sending:
            self._socket.sendall(encode(self.token, kind, body, pid=os.getpid(), **facts))

    @property
    def token(self) -> bytes:
        """The first bytes of each message, taken from the worker's first one."""
        return self._decoder.token or b""

    def ask(self, attempt: int, command: str, arguments: list[Any], state: bytes) -> Callable[[], Any]:
        """Let the worker run a command of the job; return a function that waits for its result or error.

        One call at a time: the numbers go upwards. Raises TypeError if an argument cannot be written as JSON:
        nothing was sent.
        """
        body, number = dumps(arguments), next(self._numbers)
        answer = self._callers[number] = queue.SimpleQueue()
        self.send("call", body + state, attempt=attempt, number=number, command=command, size=len(body))

        def wait() -> Any:
            head, body = answer.get()  # no limit: without a worker this process ends
            if head["is_error"]:
                raise error_from_json(loads(body), with_trace=False)
            return loads(body)

        return wait

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the handler closed our descriptor, or read from it
            while chunk := self._socket.recv(_CHUNK_BYTES):
                for message in self._decoder.feed(chunk):
                    if message.head["kind"] != "answer":
                        self.jobs.put(message)
                    elif caller := self._callers.pop(message.head["number"], None):
                        caller.put(message)
        self.jobs.put(None)
        threading.Event().wait(_END_S)
        os.killpg(0, signal.SIGKILL)  # and what the handler has started


class RemoteQueue:
    """The owner of a job in a child process. Its coroutines block, and never really await.

    ``call`` has the worker call a method of the running job, and returns its result.
    """

    def __init__(self, name: str, strategies: Collection[str], call: Callable[[str, list[Any]], Any]) -> None:
        self.name = name
        self.backoff_strategies = strategies
        self._call = call

    @property
    def queue(self) -> RemoteQueue:
        """What ``job.queue`` gives."""
        return self

    @staticmethod
    def now_ms() -> int:
        """Return this machine's clock, in ms since the epoch."""
        return now_ms()

    async def save(self, _job: SomeJob) -> SomeJob:
        """Refuse: the job runs."""
        raise RuntimeError("a running job cannot be saved again; enqueue a new one")

    async def report_progress(self, job: Job, value: Any) -> int:
        """Publish the job's progress."""
        heard: int = self._call("report_progress", [value])
        job.progress = value
        return heard

    async def remember(self, job: Job, facts: dict[str, Any]) -> None:
        """Keep facts with the job."""
        job.options["beeq"] = self._call("remember", [facts])

    async def remove(self, _job: Job) -> None:
        """Remove the job."""
        self._call("remove", [])

    async def cancel(self, _job: Job) -> bool:
        """Cancel the job, and with it this process."""
        return bool(self._call("cancel", []))

    async def retry(self, _job: Job) -> bool:
        """Queue the job again, if it has failed meanwhile."""
        return bool(self._call("retry", []))

    async def is_in_set(self, _job_id: str, name: str) -> bool:
        """Return whether the job is in the named set."""
        return bool(self._call("is_in_set", [name]))

    async def result(self, _job: Job, timeout: Duration | None) -> Any:  # noqa: ASYNC109 - in ms
        """Wait for the job's end."""
        return self._call("result", [None if timeout is None else milliseconds("timeout", timeout)])

    @staticmethod
    def new_emitter() -> Emitter:
        """Refuse: events are heard where the queue is."""
        raise RuntimeError("a child process hears no events: listen in the worker")

    @staticmethod
    def listening_changed(_job: Job) -> None:
        """Do nothing: there are no listeners."""


class _InlinePortal(Portal):
    """Runs a ``RemoteQueue``'s coroutines in the calling thread."""

    def __init__(self) -> None:
        """Need no loop."""

    def run(self, coroutine: Coroutine[Any, Any, T], *, limit_s: float = math.inf) -> T:  # noqa: ARG002 - it never waits
        """Run a coroutine that never really awaits."""
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return cast("T", stop.value)
        raise RuntimeError("a method of a job in a child process cannot wait for a loop")

    def call(self, function: Callable[[], T]) -> T:
        """Call it."""
        return function()


class ChildAttempt:
    """One run of the handler in this process."""

    def __init__(self, link: WorkerLink, message: Message) -> None:
        head = message.head
        self._link = link
        self._number: int = head["attempt"]
        self._is_over = False
        owner = RemoteQueue(head["queue"], head["strategies"], self._call)
        record = decode_record(head["id"], message.body, now_ms=now_ms())
        self._job = Job(owner, record, head["id"])
        self._job.claim = b"the worker's"  # the job runs here
        self._known_state = self._state()
        self._telling = threading.Lock()  # the worker must get the newest state last

    def run(self, handler: Callable[[BlockingJob], Any]) -> None:
        """Call the handler, and send the worker its result or error."""
        pid = os.getpid()
        job = BlockingJob(self._job, _InlinePortal())
        running_job.set(self._job)
        self._link.send("begin", attempt=self._number)
        try:
            result, error = handler(job), None
        except BaseException as raised:  # noqa: BLE001 - a handler may raise anything
            result, error = None, raised
            with contextlib.suppress(BaseException):  # a class may override these
                trace = raised.__traceback__
                BaseException.with_traceback(raised, trace and trace.tb_next)
        if os.getpid() != pid:
            _end_copy(error)
        job.detach()
        with self._telling:
            self._is_over = True  # from now on a thread of the handler gets JobLost
            if error is None:
                self._succeed(result)
            else:
                self._fail(error)

    def _succeed(self, result: Any) -> None:
        try:
            text, state = dumps(result), self._changes()
        except BaseException as error:  # noqa: BLE001 - what is written may be the handler's own code
            # Another attempt would not help, so this ends the job for good, under its own name.
            reason = TypeError(f"cannot be written as JSON: {text_of(error)}")
            self._end(dumps(error_to_json(reason, base=Discard)), b"", is_error=True)
        else:
            self._end(text, state, is_error=False)

    def _fail(self, error: BaseException) -> None:
        try:
            state = self._changes()
        except BaseException:  # noqa: BLE001 - what is written may be the handler's own code
            state = b""  # the job stays as the worker has it
        self._end(dumps(error_to_json(error)), state, is_error=True)

    def _end(self, text: bytes, state: bytes, *, is_error: bool) -> None:
        self._link.send("end", text + state, attempt=self._number, is_error=is_error, size=len(text))

    def _call(self, command: str, arguments: list[Any]) -> Any:
        self._link.refuse_in_copy()  # in a fork another thread may hold the lock for ever
        with self._telling:
            if self._is_over:
                raise JobLost(self._job.saved_id())
            wait = self._link.ask(self._number, command, arguments, self._changes())
        return wait()

    def _state(self) -> bytes:
        return dumps([self._job.data, self._job.options])

    def _changes(self) -> bytes:
        """Return data and options if the handler has changed them since they were last sent, else b"".

        Raises TypeError if they cannot be written as JSON.
        """
        state = self._state()
        if state == self._known_state:
            return b""
        self._known_state = state
        return state


def _end_copy(error: BaseException | None) -> NoReturn:
    """End a fork of the process after the handler has returned or raised in it, as a script would end.

    It runs no exit functions: they belong to the original.
    """
    code = 1
    if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
        code = error.code or 0
    elif error is not None:
        with contextlib.suppress(BaseException):  # its own ``__str__`` may raise
            traceback.print_exception(error)
    os._exit(code & 0xFF)


def main(fd: int, worker_pid: int) -> None:
    """Serve the worker at the other end of the socket ``fd`` until it hangs up."""
    _die_with(worker_pid)
    _CopiesSignals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a killed process flushes nothing
    connection = socket.socket(fileno=fd)
    connection.set_inheritable(False)  # nor does what a handler starts keep it open
    link = WorkerLink(connection)
    first = link.jobs.get()
    if first is None:
        return
    sys.argv[:] = first.head["argv"]
    setup = first.head["log"]
    configure_child(None if setup is None else LogSetup(**setup), worker=first.head["worker"])
    try:
        handler = load(HandlerRef(pickled=first.body, **first.head["handler_ref"]))
    except BaseException as error:  # noqa: BLE001 - a module may raise anything, or exit
        link.send("broken", dumps(error_to_json(error)))
        return
    link.send("ready")
    while (message := link.jobs.get()) is not None:
        ChildAttempt(link, message).run(handler)


class _CopiesSignals:
    """Gives SIGINT and SIGTERM their default effect in a fork; this process ignores them.

    ``multiprocessing`` ends its processes by SIGTERM, and waits until they have ended. A signal during the
    fork waits until its handlers are set.
    """

    def __init__(self) -> None:
        self._ours = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._masks = threading.local()  # by the thread that forks
        os.register_at_fork(
            before=self._hold, after_in_parent=self._release, after_in_child=self._set_handlers
        )

    def _hold(self) -> None:
        self._masks.found = signal.pthread_sigmask(signal.SIG_BLOCK, self._ours)

    def _release(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._masks.found)

    def _set_handlers(self) -> None:
        usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        for number, ours in self._ours.items():
            if signal.getsignal(number) is ours:  # otherwise the handler has set one
                signal.signal(number, usual[number])
        self._release()


def _die_with(worker_pid: int) -> None:
    """Let the kernel kill this process when the thread that started it ends, which runs the worker's loop."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - needed here only

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != worker_pid:
        raise SystemExit("the worker is gone")
