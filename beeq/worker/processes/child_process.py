"""One child process, seen from its worker: start it, give it a job, answer its calls, kill it.

``pool.py`` decides which child gets which job; ``child_main.py`` runs in the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from beeq.errors import BeeqError
from beeq.job import Job
from beeq.protocol.codec import dumps, loads
from beeq.worker.processes.handler_ref import HandlerRef
from beeq.worker.processes.ipc import Decoder, Message, encode, error_from_json, error_to_json

#: How long a child may take to import the handler.
START_TIMEOUT_S = 60.0
#: How long a child whose connection has ended may take to end as well, and the other way round.
_END_S = 1.0
#: How long to wait for a killed process; it takes longer only if the system itself hangs.
_DEATH_S = 5.0
#: Ignores SIGINT and SIGTERM from the first moment: when all processes get one, the worker decides. (Not by
#: SIG_IGN, which the programs that a handler starts would inherit.) Searches modules where the worker does.
_BOOT = """\
import json, signal, sys
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: None)
sys.path[:] = json.loads(sys.argv[3])
from beeq.worker.processes.child_main import main
main(int(sys.argv[1]), int(sys.argv[2]))
"""


class ChildDied(BeeqError):
    """The child process that ran a handler ended, crashed, was killed, or never got ready."""

    def __init__(self, how: str, *, has_begun: bool) -> None:
        super().__init__(f"the child process {how}")
        #: Whether the handler had been called.
        self.has_begun = has_begun


class ChildProcess(asyncio.Protocol):
    """A child process; the protocol of the connection to it. ``on_gone`` is called when it has ended."""

    def __init__(self, on_gone: Callable[[ChildProcess], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_gone = on_gone
        self._decoder = Decoder()
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._life: asyncio.Task[None] | None = None
        self._disconnected: asyncio.Future[None] = self._loop.create_future()
        #: Done when the child is ready, and for each job when its handler has ended.
        self._awaited: asyncio.Future[Any] = self._loop.create_future()
        self._job: Job | None = None
        self._has_begun = False
        self._calls: set[asyncio.Task[None]] = set()
        self._fault = ""
        #: Whether it may be given a job.
        self.is_fit = True
        #: Whether it was ever given one.
        self.is_used = False

    # Start and end.

    async def start(self, handler_ref: HandlerRef) -> None:
        """Start the process; return when it has the handler.

        Raises:
            ChildDied: it died, or took too long. OSError: the system could not start it.
            Exception: what the handler's module raised.
        """
        limit = asyncio.timeout(START_TIMEOUT_S)
        try:
            async with limit:
                await self._spawn()
                facts = dataclasses.asdict(handler_ref)
                self._send("load", facts.pop("pickled"), handler_ref=facts, argv=sys.argv)
                await self._awaited
        except BaseException:
            await self.kill()
            if limit.expired():
                raise ChildDied(f"was not ready within {START_TIMEOUT_S:.0f} s", has_begun=False) from None
            raise

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-c", _BOOT, str(theirs.fileno()), str(os.getpid())),
                    json.dumps([entry for entry in sys.path if isinstance(entry, str)]),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        self._life = self._loop.create_task(self._live(self._process), name=f"beeq child {self._process.pid}")
        self._transport, _ = await self._loop.create_unix_connection(lambda: self, sock=ours)

    async def _live(self, process: asyncio.subprocess.Process) -> None:
        """Wait until the process and its connection have ended, in either order; then clean up."""
        exited = self._loop.create_task(process.wait())
        ends: set[asyncio.Future[Any]] = {exited, self._disconnected}
        how = "was not waited for"
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)  # as long as it lives
            await asyncio.wait(ends, timeout=_END_S)
            how = _how_it_ended(process.returncode)
            self._kill_group()
            await asyncio.wait({exited}, timeout=_DEATH_S)
        finally:
            exited.cancel()
            self._leave(self._fault or how)

    def _leave(self, how: str) -> None:
        self.is_fit = False
        if self._transport is not None:
            self._transport.abort()
        for call in self._calls:
            call.cancel()
        if not self._awaited.done():
            self._awaited.set_exception(ChildDied(how, has_begun=self._has_begun))
            self._awaited.exception()  # marks it as retrieved: there may be no waiter
        self._on_gone(self)

    async def end(self) -> None:
        """Hang up, so that an idle child ends by itself, else kill it; return when it has ended."""
        self.is_fit = False
        if self._transport is not None:
            self._transport.close()
        await self._gone()

    async def kill(self) -> None:
        """Kill the child and what it has started; return when it has ended."""
        self.is_fit = False
        self._kill_group()
        if self._transport is not None:
            self._transport.abort()
        await self._gone()

    async def _gone(self) -> None:
        if self._life is None:
            self._leave("could not be started")
        elif not self._life.done():
            await asyncio.wait({self._life}, timeout=_END_S + _DEATH_S)

    def _kill_group(self) -> None:
        """Kill the child's process group, which holds the child and what it has started."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # the second: zombies, on macOS
                os.killpg(self._process.pid, signal.SIGKILL)

    # Jobs.

    async def run(self, job: Job) -> Any:
        """Run the handler with ``job``; return its result. Cancelling this kills the child.

        Raises what the handler raised, under its own name, or ``ChildDied`` if the child ended first.
        """
        if not self.is_fit:  # it died while idle, and the pool had not heard yet
            raise ChildDied("was gone already", has_begun=False)
        self.is_used, self._has_begun = True, False
        self._job, self._awaited = job, self._loop.create_future()
        self._send(
            "job",
            job.claimed_record,
            id=job.saved_id(),
            queue=job.owner.name,
            strategies=list(job.owner.backoff_strategies),
        )
        try:
            return await self._awaited  # the job's own timeout bounds it
        except asyncio.CancelledError:
            await self.kill()
            raise
        finally:
            self._job = None

    def _send(self, kind: str, body: bytes = b"", **facts: Any) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(kind, body, **facts))

    def data_received(self, data: bytes) -> None:
        """Handle the child's messages."""
        try:
            for message in self._decoder.feed(data):
                self._received(message)
        except (KeyError, ValueError):
            self._fault = "wrote something else to its connection to the worker"
            self._kill_group()

    def connection_lost(self, _error: Exception | None) -> None:
        """Note that the connection has ended."""
        if not self._disconnected.done():
            self._disconnected.set_result(None)

    def _received(self, message: Message) -> None:
        if self._awaited.done():
            return  # its attempt was given up; the child is about to be killed
        match message.head["kind"]:
            case "ready":
                self._awaited.set_result(None)
            case "broken":
                self._awaited.set_exception(error_from_json(loads(message.body), with_trace=True))
            case "begin":
                self._has_begun = True
            case "call":
                self._called(message)
            case "end":
                self._ended(message)
            case kind:
                raise ValueError(f"unknown message {kind}")

    def _called(self, message: Message) -> None:
        head = message.head
        job, arguments = self._parts(message)
        call = self._loop.create_task(self._answer(job, head["number"], head["command"], arguments))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    def _ended(self, message: Message) -> None:
        _job, value = self._parts(message)
        if message.head["is_error"]:
            self._awaited.set_exception(error_from_json(value, with_trace=True))
        else:
            self._awaited.set_result(value)

    def _parts(self, message: Message) -> tuple[Job, Any]:
        """Return the job, with data and options from the second part, if any; and the first part's value."""
        if self._job is None:
            raise ValueError("no job runs")
        size = message.head["size"]
        if len(message.body) > size:
            self._job.data, self._job.options = loads(message.body[size:])
        return self._job, loads(message.body[:size])

    async def _answer(self, job: Job, number: int, command: str, arguments: list[Any]) -> None:
        try:
            value = await _run_command(job, command, arguments)
        except Exception as error:  # noqa: BLE001 - it is raised in the child
            self._send("answer", dumps(error_to_json(error)), number=number, is_error=True)
        else:
            self._send("answer", dumps(value), number=number, is_error=False)


async def _run_command(job: Job, command: str, arguments: list[Any]) -> Any:
    match command:
        case "remember":
            await job.remember(**arguments[0])
            return job.options["beeq"]
        case "remove":
            await job.remove()
            return None
        case "report_progress" | "cancel" | "retry" | "is_in_set" | "result":
            return await getattr(job, command)(*arguments)
    raise ValueError(f"unknown command {command}")


def _how_it_ended(code: int | None) -> str:
    if code is None:
        return "closed its connection to the worker"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = f" ({signal.Signals(-code).name})"
    except ValueError:
        name = ""  # a real-time signal
    return f"was killed by signal {-code}{name}"
