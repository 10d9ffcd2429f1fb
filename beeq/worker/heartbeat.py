"""Heartbeats for the jobs that run here, from a thread and a connection of their own.

A claim is a job's first sign of life (``lua/exchange.lua``); beats follow at least twice a stall interval. If
the process dies before the first of them, a stall check requeues the job anyway.

A beat renews claims, not ids, and learns which of them are lost: this process may have been suspended while
its jobs stalled, and other workers may have them by now. The loop checks these again before it stops a
handler (``worker.py``), because an outcome may have been sent and recorded while the beat was on its way.

If the client that a queue was given works in its own loop only (``redis/dialling/apart.py``), beats are sent
from that loop.

A handler that blocks the loop loses no job, and this thread logs it (``loop_watch.py``). If the process must
end then, this thread gives its jobs back (``give_back_all``). The thread only reads the scheduler's state.
All queues of a process share one thread: hundreds of threads, each with a loop, would cost more than the
queues do.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import random
import threading
import time
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass, field, replace

from beeq.client.history_note import HistoryNote
from beeq.client.reader import WORKER_LIFETIME_MS
from beeq.client.registry import QueueNote
from beeq.errors import RedisError
from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.connection import Connection
from beeq.redis.connector import Connector
from beeq.settings import Settings
from beeq.supervision.duty import Duty
from beeq.supervision.loop_watch import LOOK_S, look_at_loops
from beeq.supervision.supervised_task import SupervisedTask
from beeq.worker.running_notes import RunningNotes, WorkerLook, batches
from beeq.worker.scheduling.ahead import AheadJobs

#: The longest time between beats: the registry of workers needs more beats than a long stall interval gives.
_LONGEST_INTERVAL_MS = 10_000
#: Jitter, as parts of an interval, and of the wait after a failure: thousands of workers that began, or
#: failed, together must not go on in step, and none may be late.
_INTERVAL_JITTER = (0.8, 1.0)
_AGAIN_JITTER = (0.5, 1.0)
#: The part of an interval that is waited for at least, however long the beat itself took.
_SHORTEST_REST = 0.1
#: The part of an interval after which no further call notes what runs: the next beat must not wait for it.
_NOTING = 0.25
#: Jobs a call: half a millisecond of Redis's time …
_MAX_IDS = 500
#: … and not much more than so many bytes, since ids may be long. Its reply is due within a third of the
#: interval, or within a second: a slow network must carry the call in that time, beside records and results.
_MAX_BYTES = 20_000
#: How soon a beat that failed is repeated, the first time and later.
_FIRST_AGAIN_S = 0.1
_LONGEST_AGAIN_S = 1.0
#: How often it looks for late jobs while some are claimed ahead, and for how long after the last one.
_AHEAD_LOOK_S = 0.03
_AHEAD_IS_OVER_S = 1.0
#: The loop gives late jobs back itself; one that has not done so for so long is blocked.
_LOOP_IS_LATE_S = 0.01
#: How long leaving the registry may take.
_LONGEST_END_S = 1.0


class _Thread:
    """A thread with a loop, in which heartbeats run; it ends when the last of them has."""

    #: The thread that takes further heartbeats.
    current: _Thread | None = None
    #: Held to enter or leave: queues may run in several threads.
    lock = threading.Lock()

    def __init__(self) -> None:
        self.loop = Context().run(asyncio.new_event_loop)  # its handles keep the context they are made in
        self.beating: set[Heartbeat] = set()
        self._thread = threading.Thread(
            target=Context().run,  # some Pythons let a thread inherit its starter's
            args=(self._main,),
            name="beeq-heartbeat",
            daemon=True,
        )

    @classmethod
    def enter(cls, heartbeat: Heartbeat) -> _Thread:
        """Return the process's thread, starting it for the first heartbeat; call ``leave`` in the end."""
        with cls.lock:
            thread = cls.current
            if thread is None:
                thread = _Thread()
                thread._thread.start()
                cls.current = thread
            thread.beating.add(heartbeat)
            return thread

    def leave(self, heartbeat: Heartbeat) -> None:
        """Note that one heartbeat has ended; called in the thread."""
        with self.lock:
            self.beating.discard(heartbeat)
            if not self.beating:
                _Thread.current = None  # the next heartbeat starts another one
                self.loop.stop()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end if no heartbeat is left in it."""
        if not self.beating:
            self._thread.join(timeout_s)

    def _look(self) -> None:
        """Check the loops in which queues work: this thread goes on when they are blocked."""
        self.loop.call_later(LOOK_S, self._look)
        look_at_loops()

    @staticmethod
    async def _end_tasks() -> None:
        """Let abandoned connection attempts end."""
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_LONGEST_END_S)

    def _main(self) -> None:
        self.loop.call_later(LOOK_S, self._look)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self._end_tasks())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()


def _forget_thread() -> None:
    """A fork has its parent's memory and none of its threads."""
    _Thread.current, _Thread.lock = None, threading.Lock()


os.register_at_fork(after_in_child=_forget_thread)


class Heartbeat:
    """Beats at least twice a stall interval, from its construction until ``stop``, or the end of its loop.

    It references its worker and the worker's loop weakly, unless it beats in that loop.

    Args:
        connector: makes the connection; not shared with another thread's loop.
        keys: of the queue.
        settings: of the queue.
        worker: this process's name in the registry.
        held: called in the thread; returns the jobs to beat for, id → claim, and the one of these claims that
            Redis may not have granted yet, or empty.
        look: called in the thread; returns the worker's state, to be published, or None if it is gone.
        ahead: the jobs that were claimed ahead there.
        on_returned: called in the thread with id and claim of jobs claimed ahead that it has taken out,
            because the loop was blocked, and whether they were given back.
        take_counts: called in the thread; returns what is new for the queue's history, see ``WorkCounts``.
        on_living: called in the thread with how many worker processes of the queue live, this one included,
            and when that was read, by the monotonic clock.
        on_cancelled: called in the thread with the claims of jobs that were cancelled.
        on_lost: called in the thread with the claims that Redis no longer knows. Each had been granted when
            ``held`` returned it; since then its outcome may have been recorded.
        on_error: called in the thread with each failure.
        patience_s: how long it may be silent before the watchdog restarts it.
        loop: the running loop, if the connector works in no other; then the callbacks are called in it.
            None: that of the heartbeats' thread.
    """

    def __init__(
        self,
        connector: Connector,
        keys: Keys,
        settings: Settings,
        *,
        worker: str,
        held: Callable[[], tuple[dict[bytes, bytes], bytes]],
        look: Callable[[], WorkerLook | None],
        ahead: AheadJobs,
        on_returned: Callable[[tuple[list[tuple[bytes, bytes]], bool]], object],
        take_counts: Callable[[], str],
        on_living: Callable[[tuple[int, float]], object],
        on_cancelled: Callable[[list[bytes]], object],
        on_lost: Callable[[list[bytes]], object],
        on_error: Callable[[BaseException], object],
        patience_s: float,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._connector = connector
        self._keys = keys
        self._settings = settings
        self._interval_s = min(settings.stall_interval / 2, _LONGEST_INTERVAL_MS) / 1000
        # A beat without a reply is repeated before its jobs stall.
        timeout_ms = min(settings.redis_timeout, max(1000, settings.stall_interval // 3))
        self._connection = Connection(connector, timeout_ms=timeout_ms)
        self._worker = worker
        self._note = QueueNote(keys)
        self._history = HistoryNote(keys, take_counts)
        self._own_keys = replace(keys, worker=worker)
        self._running = RunningNotes(self._own_keys, stall_interval_ms=settings.stall_interval, look=look)
        self._held = held
        self._ahead, self._on_returned = ahead, on_returned
        self._watches_ahead = False
        self._next_look: asyncio.TimerHandle | None = None
        self._returning: asyncio.Task[None] | None = None
        self._on_living = on_living
        self._on_cancelled = on_cancelled
        self._on_lost = on_lost
        self._on_error = on_error
        self._stopped = asyncio.Event()  # the thread's
        self._task = SupervisedTask(
            "heartbeat",
            self.run,
            patience_s=patience_s,
            on_error=on_error,
            may_end=self._stopped.is_set,
            on_over=self._ended,
        )
        self._has_ended = threading.Event()
        #: Whether it has ended with the jobs' loop.
        self.is_over = False
        self._hanging_up: asyncio.Task[None] | None = None
        self._thread = _Thread.enter(self)  # it also watches the loops, even if beats are sent elsewhere
        self._loop = loop or self._thread.loop
        self._loop.call_soon_threadsafe(self._task.start)

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop in which it beats."""
        return self._loop

    def left_jobs(self) -> LeftJobs:
        """Return the jobs that run here now; may be called in any thread."""
        held, _ = self._held()
        return LeftJobs(self._keys.queue_name, ids=[raw_id.decode(errors="replace") for raw_id in held])

    @property
    def duty(self) -> Duty:
        """Its state, for the watchdog."""
        return self._task.duty

    def stop(self) -> None:
        """End, and take this process out of the registry; ``join`` waits for that."""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._stop)

    def loop_is_over(self) -> None:
        """End, because the jobs' loop is over. May be called in any thread."""
        self.is_over = True
        if self._loop is self._thread.loop:
            self.stop()
        else:  # then its own loop does not run, either
            with contextlib.suppress(RuntimeError):
                self._thread.loop.call_soon_threadsafe(self._leave_thread)

    def _stop(self) -> None:
        self._stopped.set()
        self._loop.call_later(_LONGEST_END_S, self._task.cancel)

    def join(self, timeout_s: float) -> None:
        """Wait for the end."""
        if self._has_ended.wait(timeout_s):
            self._thread.join(timeout_s)

    def _ended(self) -> None:
        self._hanging_up = self._loop.create_task(self._hang_up())

    async def _hang_up(self) -> None:
        """Close the connections; also if the time was over before ``run`` was restarted."""
        with contextlib.suppress(Exception):  # the thread must end all the same
            async with asyncio.timeout(_LONGEST_END_S):
                await self._connection.close()
                await self._connector.close()
        self._thread.loop.call_soon_threadsafe(self._leave_thread)

    def _leave_thread(self) -> None:
        if not self._has_ended.is_set():
            self._thread.leave(self)
            self._has_ended.set()

    async def run(self, duty: Duty) -> None:
        """Beat until ``stop``."""
        again_s = _FIRST_AGAIN_S
        try:
            while not self._stopped.is_set():
                next_s = self._loop.time() + self._interval_s * random.uniform(*_INTERVAL_JITTER)
                try:
                    await self.once()
                    duty.turn()
                    await self._note_queue()
                    await self._note_history()
                    await self._note_running(is_beat=True)
                    again_s = _FIRST_AGAIN_S
                    rest_s = max(next_s - self._loop.time(), self._interval_s * _SHORTEST_REST)
                except RedisError as error:
                    self._on_error(error)
                    # After an outage or a failover, a stall check may come before the next regular beat.
                    rest_s = min(self._interval_s, again_s) * random.uniform(*_AGAIN_JITTER)
                    again_s = min(again_s * 2, _LONGEST_AGAIN_S)
                await self._rest(duty, rest_s)
            await self._leave()
        finally:
            self._connection.leave()  # it may be restarted; a closed connection would stay closed

    async def _rest(self, duty: Duty, rest_s: float) -> None:
        """Wait so long, or for ``stop``, with signs of life."""
        while rest_s > 0 and not self._stopped.is_set():
            step_s = min(rest_s, duty.patience_s / 2, self._running.look_s)
            rest_s -= step_s
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), step_s)
            duty.rests(0)
            if rest_s > 0 and self._connection.is_connected:
                began_s = self._loop.time()
                await self._note_running(is_beat=False)
                rest_s -= self._loop.time() - began_s

    async def once(self) -> None:
        """Beat now. Raises RedisError if Redis did not get it."""
        held, early_claim = self._held()
        for jobs in batches(list(held.items()), _MAX_IDS, _MAX_BYTES):
            self.duty.rests(0)
            asked_at_s = time.monotonic()
            cancelled, lost, living = await scripts.beat(
                self._connection,
                self._keys,
                worker=self._worker,
                lifetime_ms=WORKER_LIFETIME_MS,
                early=early_claim,
                jobs=jobs,
            )
            self._on_living((living, asked_at_s))
            if cancelled:
                self._on_cancelled(cancelled)
            if lost:
                self._on_lost(lost)

    async def _note_queue(self) -> None:
        """Register the queue for commands, at first and then once an hour, if the user has the right."""
        if self._note.is_due():
            try:
                await self._connection.run(scripts.note_queue, self._note.packed())
            except RedisError as error:
                self._note.failed(error)

    async def _note_history(self, *, is_last: bool = False) -> None:
        """Add due counts and samples to the queue's history. Nothing depends on it."""
        call = self._history.packed(is_last=is_last)
        if call is None:
            return
        try:
            self._history.answered(await self._connection.run(scripts.note_history, call))
        except RedisError as error:
            self._history.failed(error)  # the next beat says so, too

    async def _note_running(self, *, is_beat: bool) -> None:
        """Publish the running jobs. Nothing depends on it: a refused note is repeated later."""
        ends_s = self._loop.time() + self._interval_s * _NOTING
        try:
            for n, call in enumerate(self._running.calls(is_beat=is_beat)):
                if n and self._loop.time() > ends_s:  # always send one, or a busy process notes nothing
                    self._running.failed()
                    break
                self._running.answered(await self._connection.run(scripts.note_running, call))
                self.duty.rests(0)
        except RedisError:
            self._running.failed()  # the next beat says so, too

    def watch_ahead(self) -> None:
        """Look for late jobs while jobs are claimed ahead; called in the jobs' loop."""
        # Where beats are sent from the jobs' own loop, nobody could give jobs back while it is blocked.
        is_apart = self._loop is self._thread.loop
        if is_apart and not self._watches_ahead:
            self._watches_ahead = True
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._look_ahead, self._loop.time())

    def _look_ahead(self, seen_s: float) -> None:
        """Give back late jobs. ``seen_s``: when jobs were last seen claimed ahead."""
        now_s = self._loop.time()
        if self._ahead:
            seen_s = now_s
        if self._next_look is not None:
            self._next_look.cancel()  # it is pending if ``watch_ahead`` has asked for this look
        if now_s - seen_s > _AHEAD_IS_OVER_S or self._has_ended.is_set():
            # The losing order: the loop has claimed jobs ahead since, and found that they are watched.
            self._watches_ahead = False
            if not self._ahead or self._has_ended.is_set():
                return
            self._watches_ahead = True
        self._next_look = self._loop.call_later(_AHEAD_LOOK_S, self._look_ahead, seen_s)
        if self._returning is None and self._ahead:
            # Whichever of this thread and the loop takes a job out must start it or give it back.
            late = self._ahead.take_overdue(time.monotonic() - _LOOP_IS_LATE_S)
            if late:
                claims = [(raw_id, claim) for raw_id, _, _, claim in late]
                self._returning = self._loop.create_task(self._return(claims), name="beeq late jobs")

    async def _return(self, newest_first: list[tuple[bytes, bytes]]) -> None:
        """Give these jobs back, each to the front."""
        is_done = False
        try:
            given_back = 0
            while given_back < len(newest_first):
                given_back += await scripts.give_back(
                    self._connection,
                    self._keys,
                    outbox_limit=self._settings.outbox_limit,
                    jobs=newest_first[given_back:],
                )
            is_done = True
        except RedisError as error:
            self._on_error(error)
        finally:  # otherwise their places would stay taken for ever
            self._returning = None
            self._on_returned((newest_first[::-1], is_done))

    async def give_back(self, left: LeftJobs) -> None:
        """Give back the running jobs, in ``loop``, over a separate connection. Raises RedisError."""
        held, _ = self._held()
        pairs = list(reversed(held.items()))  # each goes to the front: the newest first
        connection = Connection(self._connector, timeout_ms=self._settings.redis_timeout)
        try:
            while pairs:
                done = await scripts.give_back(
                    connection,
                    self._keys,
                    outbox_limit=self._settings.outbox_limit,
                    jobs=pairs[:_MAX_IDS],
                )
                given = {raw_id.decode(errors="replace") for raw_id, _ in pairs[:done]}
                left.given_back += [job_id for job_id in left.ids if job_id in given]
                left.ids = [job_id for job_id in left.ids if job_id not in given]
                del pairs[:done]
        finally:
            connection.leave()

    async def _leave(self) -> None:
        await self._note_history(is_last=True)
        try:
            await self._connection.call("ZREM", self._keys.workers, self._worker)
            await self._connection.call("UNLINK", self._own_keys.running)
        except RedisError as error:
            self._on_error(error)  # the entry in the registry expires by itself


@dataclass(slots=True)
class LeftJobs:
    """The jobs that a queue's worker held when its process was ended."""

    queue_name: str
    given_back: list[str] = field(default_factory=list)
    #: They stay in ``active`` until a stall check finds them.
    ids: list[str] = field(default_factory=list)


def give_back_all(limit_s: float) -> list[LeftJobs]:
    """Give back the jobs that run in this process, which ends now because a loop is blocked.

    Called in a thread that is neither such a loop's nor the heartbeats'. Returns after ``limit_s`` at most;
    jobs for which Redis has not answered by then, or whose connector works in the blocked loop only, stay.
    """
    thread = _Thread.current
    heartbeats = [] if thread is None else list(thread.beating)
    left = [heartbeat.left_jobs() for heartbeat in heartbeats]
    calls = [
        asyncio.run_coroutine_threadsafe(heartbeat.give_back(jobs), heartbeat.loop)
        for heartbeat, jobs in zip(heartbeats, left, strict=True)
    ]
    concurrent.futures.wait(calls, limit_s)
    return left
