"""One child process, seen from its worker: starts it, gives it jobs, answers its calls, kills it.

``pool.py`` decides which child gets which job; ``child_main.py`` runs in the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from beeq.errors import BeeqError
from beeq.job import Job
from beeq.logs.setup import setup_of_log
from beeq.process import process_name
from beeq.protocol.codec import dumps, loads
from beeq.worker.attempts.processes.group_keeper import GroupKeeper
from beeq.worker.attempts.processes.handler_ref import HandlerRef
from beeq.worker.attempts.processes.ipc import (
    TOKEN_BYTES,
    Decoder,
    Message,
    encode,
    error_from_json,
    error_to_json,
)

logger = logging.getLogger("beeq")

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
from beeq.worker.attempts.processes.child_main import main
main(int(sys.argv[1]), int(sys.argv[2]))
"""


class ChildDied(BeeqError):
    """The child process that ran a handler ended, crashed, was killed, or never got ready."""

    def __init__(self, how: str, *, has_begun: bool) -> None:
        super().__init__(f"the child process {how}")
        #: Whether the handler had been called.
        self.has_begun = has_begun


class ChildProcess(asyncio.Protocol):
    """A child process; the protocol of the connection to it.

    It leads a process group and a session, which end with it, and through ``keeper`` with the worker.
    ``on_gone`` is called when it has ended.
    """

    def __init__(self, on_gone: Callable[[ChildProcess], None], keeper: GroupKeeper) -> None:
        self._loop = asyncio.get_running_loop()
        self._keeper = keeper
        self._on_gone = on_gone
        self._token = secrets.token_bytes(TOKEN_BYTES)
        self._decoder = Decoder(self._token)
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._life: asyncio.Task[None] | None = None
        self._disconnected: asyncio.Future[None] = self._loop.create_future()
        #: Done when the child is ready, and for each job when its handler has ended.
        self._awaited: asyncio.Future[Any] = self._loop.create_future()
        self._job: Job | None = None
        self._attempts = itertools.count(1)
        self._attempt = 0  # the last one, whether it goes on or not
        self._last_call = 0
        self._child_pid = 0  # as the child has it
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
                setup = setup_of_log()
                self._send(
                    "load",
                    facts.pop("pickled"),
                    handler_ref=facts,
                    argv=sys.argv,
                    worker=process_name(),
                    log=None if setup is None else dataclasses.asdict(setup),
                )
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
        try:
            self._keeper.add(self._process.pid)  # before it hears of the handler, which may start others
        except BaseException:
            ours.close()
            raise
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
            self._keeper.end(process.pid)
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
        self.kill_now()
        await self._gone()

    def kill_now(self) -> None:
        """Kill the child and what it has started; ``kill`` waits for its end."""
        self.is_fit = False
        self._kill_group()
        if self._transport is not None:
            self._transport.abort()

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
        if not self.is_fit:  # it died while idle, and the pool does not know yet
            raise ChildDied("was gone already", has_begun=False)
        self.is_used, self._has_begun = True, False
        self._job, self._awaited = job, self._loop.create_future()
        self._attempt = next(self._attempts)
        self._send(
            "job",
            job.claimed_record,
            attempt=self._attempt,
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
            if not self.is_fit:
                self.kill_now()  # the pool starts another one

    def _send(self, kind: str, body: bytes = b"", **facts: Any) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(self._token, kind, body, **facts))

    def data_received(self, data: bytes) -> None:
        """Handle the child's messages."""
        try:
            for message in self._decoder.feed(data):
                self._received(message)
        except Exception:  # noqa: BLE001 - the handler may have written anything
            self._fault = self._fault or "wrote something else to its connection to the worker"
            self.is_fit = False
            self._kill_group()

    def connection_lost(self, _error: Exception | None) -> None:
        """Note that the connection has ended."""
        if not self._disconnected.done():
            self._disconnected.set_result(None)

    def _received(self, message: Message) -> None:
        if self._fault or self._awaited.cancelled():
            return  # it is being killed, or about to be
        head = message.head
        is_about_job = head["kind"] in {"begin", "call", "end"}
        if not is_about_job and head["kind"] not in {"ready", "broken"}:
            raise ValueError("unknown message")
        if not is_about_job and self._child_pid == 0:
            self._child_pid = head["pid"]
        if (
            head["pid"] != self._child_pid
            or self._awaited.done()
            or (self._job is not None) is not is_about_job
            or (is_about_job and head["attempt"] != self._attempt)
        ):
            self._drop(head["kind"])
            return
        match head["kind"]:
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

    def _drop(self, kind: str) -> None:
        """Have the child replaced after its job: it sent a message that belongs to no live call.

        A fork of its handler, or the handler itself, may have sent it, and may do so again.
        """
        if not self.is_fit:
            return  # it is being killed, or this was logged
        logger.warning("a child process is replaced: it sent %.200r, which belongs to no live call", kind)
        self.is_fit = False
        if self._job is None:
            self.kill_now()

    def _called(self, message: Message) -> None:
        head = message.head
        if not isinstance(head["number"], int) or head["number"] <= self._last_call:
            self._drop(head["kind"])  # a fork counts as the original does
            return
        self._last_call = head["number"]
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
            raise ValueError("no job runs")  # which was asked before
        size = message.head["size"]
        if len(message.body) > size:
            self._job.data, self._job.options = loads(message.body[size:])
        return self._job, loads(message.body[:size])

    async def _answer(self, job: Job, number: int, command: str, arguments: list[Any]) -> None:
        try:
            value = dumps(await _run_command(job, command, arguments))
        except Exception as error:  # noqa: BLE001 - it is raised in the child
            self._send("answer", dumps(error_to_json(error)), number=number, is_error=True)
        else:
            self._send("answer", value, number=number, is_error=False)


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
