"""The public queue: makes jobs, finds them, delivers their events, runs them, closes.

It is built of parts (``worker/parts.py``): ``Session`` opens and closes, ``JobActions`` does what jobs need,
``Consumer`` works. What acts on many jobs at once is inherited: ``operations/queue_methods.py``.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Self, Unpack, cast, overload

from beeq.client.closing import close_timeout_ms
from beeq.client.reader import Health, JobState, Stats
from beeq.emitter import Listener
from beeq.job import Data, Job, Result
from beeq.operations.queue_methods import OperatorMethods
from beeq.process import now_ms
from beeq.protocol.backoff import Strategy, builtin_strategies
from beeq.protocol.codec import Model, payload, plain
from beeq.protocol.events import QueueEventName
from beeq.protocol.keys import JobSetName
from beeq.protocol.options import check_job_id
from beeq.settings import Duration, QueueSettings, Settings, milliseconds, whole
from beeq.worker.attempts.runner import Executor, Handler, SomeHandler
from beeq.worker.health import WorkerHealth
from beeq.worker.parts import QueueParts

if TYPE_CHECKING:
    from redis.asyncio import Redis


class Queue(OperatorMethods, Generic[Data, Result]):
    """A queue on Redis, shared with bee-queue's Node peers. Protocol: their wire format, unchanged.

    Args:
        name: the queue's name; any text.
        redis: a URL (``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://h1:26379,h2:26379/name/0``,
            ``redis+cluster://h1,h2``, ``embedded:``, see ``redis/urls.py``), a client of ``redis.asyncio`` or
            ``valkey.asyncio``, of a cluster, too. None: what the environment says (``BEEQ_REDIS_URL``,
            ``REDIS_URL``, ``REDIS_HOST`` …), else ``redis://127.0.0.1:6379``.
        **settings: see ``Settings`` and ``QueueSettings``; durations are ints in ms, timedeltas, or text
            like ``30s``.

    Raises:
        TypeError, ValueError: a bad setting, name or URL, or a client that cannot be used (one that blocks,
            fakeredis's); the message names it, and says what to pass instead.

    ``Queue[Data, Result]("mail")`` tells a type checker what the jobs carry, and what their handler returns.

    Connects at the first await, in ``connect``, ``ready``, or ``async with``. It works in that event loop and
    process only: elsewhere, also after a fork, its methods raise RuntimeError. Its duties and connections run
    in an empty context (``contextvars``), not in that of the code that opened it.

    A client's credential provider is called in this loop, also for the heartbeat's thread. With a foreign
    connection class, pool or callback the heartbeats are sent from this loop; the log says so once. An error
    of any of these counts as Redis being away: it is reported, and the call is tried again.
    """

    def __init__(
        self, name: str, *, redis: str | Redis | None = None, **settings: Unpack[QueueSettings]
    ) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError("a queue needs a name, a str that is not empty")
        self.name = name
        unknown = settings.keys() - Settings.__dataclass_fields__.keys()
        if unknown:
            raise TypeError(f"unknown setting: {', '.join(sorted(unknown))}")
        self.settings = Settings(**cast("dict[str, Any]", settings))
        #: Strategies by name; add your own before a job asks for it.
        self.backoff_strategies: dict[str, Strategy] = builtin_strategies()
        #: Whether ``redis=`` was given.
        self.has_own_redis = redis is not None
        self._redis = redis
        self._build_of(QueueParts.build(self, name, self.settings, redis))

    def _build_of(self, parts: QueueParts) -> None:
        self._parts = parts
        #: Its counters and traces.
        self.telemetry = parts.context.telemetry
        self.keys, self.connector, self.pipeline = parts.keys, parts.connector, parts.pipeline
        self.event_hub, self._listeners, self._reader = parts.event_hub, parts.listeners, parts.reader
        self._session, self._actions, self._consumer = parts.session, parts.actions, parts.consumer
        OperatorMethods.__init__(self, parts.context, parts.session, parts.actions)

    def __repr__(self) -> str:
        return f"<Queue {self.name!r}>"

    def use(self, *, redis: str | Redis | None = None, **changes: Unpack[QueueSettings]) -> None:
        """Use another Redis, or other settings, than the queue was made with; None leaves it as it is.

        For a queue that is not open: not yet, as in an app that is loaded, or no more, as between two tests.

        Raises:
            RuntimeError: the queue works already, or is open. TypeError, ValueError: a bad value.
        """
        if not self._session.is_over and (self._session.is_ready or self._consumer.has_begun):
            raise RuntimeError(f"queue {self.name} is open already")
        given = {name: value for name, value in changes.items() if value is not None}
        settings = replace(self.settings, **cast("dict[str, Any]", given))
        redis = self._redis if redis is None else redis
        parts = QueueParts.build(self, self.name, settings, redis)
        self.settings, self._redis = settings, redis
        self._build_of(parts.succeed(self._parts))

    def to_key(self, suffix: str) -> str:
        """Return the full name of one of the queue's keys."""
        return self.keys.to_key(suffix)

    @staticmethod
    def now_ms() -> int:
        """Return this machine's clock, in ms since the epoch."""
        return now_ms()

    # Session.

    async def connect(self) -> bool:
        """Connect, within bounded tries; fine when connected already.

        A closed queue is opened again, in any loop. Its listeners stay, and so does a handler that
        ``process`` got outside a loop, which ``run`` starts. Jobs from before the close, and waits for them,
        stay closed.

        Raises:
            RedisUnavailable: Redis cannot be reached; call again to try again. QueueClosed: it is closing.
        """
        if self._session.is_over:
            parts = QueueParts.build(self, self.name, self.settings, self._redis)
            self._build_of(parts.succeed(self._parts))
        await self._session.connect()
        return True

    async def ready(self) -> Self:
        """Return the queue once it is connected. Raises what ``connect`` raises."""
        await self._session.ensure()
        return self

    @property
    def loop(self) -> AbstractEventLoop | None:
        """The event loop in which it was opened; None while nothing is open."""
        return self._session.owning_loop.loop

    def is_running(self) -> bool:
        """Return whether the queue has not been closed."""
        return self._session.is_running

    async def close(self, timeout: Duration | None = None) -> None:  # noqa: ASYNC109 - bee-queue's word for it, in ms
        """Stop taking jobs, wait for the running ones, and hang up. Calling it again is fine.

        ``connect`` opens the queue again.

        Args:
            timeout: ms, timedelta, or text like ``30s``; None, 0 and negatives mean 5000. What still
                runs then is cancelled and goes to the front of the queue, its retries untouched.
                Even if handlers, threads, listeners or Redis hang, this returns at most 3 s after the
                timeout.

        Raises:
            TimeoutError: some jobs did not end in time (``Operation timed out.``). All is closed.
        """
        await self._session.close(close_timeout_ms(timeout))

    async def __aenter__(self) -> Self:
        """Connect, also after a close; if that fails, or is cancelled, stop the worker."""
        try:
            await self.connect()
        except BaseException as error:
            await self._session.leave_unopened(error)
            raise
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Close. An error in the block is raised on; if it was cancelled, jobs that run go back at once."""
        await self._session.leave(error)

    async def destroy(self) -> int:
        """Delete the queue: every key, bee-queue's and beeq's. Return how many there were."""
        await self._session.ensure()
        return await self._actions.destroy()

    # Listeners.

    def on(self, event: QueueEventName, fn: Listener) -> Self:
        """Call ``fn`` at every ``event``; it may be a coroutine function.

        ``ready()``; ``error(error)``, the same one of Redis's seldom, see ``supervision/error_reports.py``;
        ``reconnected(away_ms, errors)`` when Redis is back and an ``error`` has said that it was away;
        ``stalled(id)``, ``raised jobs(count)``; of jobs that run here ``succeeded(job, result)``,
        ``retrying(job, error)``, ``failed(job, error)`` at every failed attempt, ``failed:fatal(job,
        error)``, ``postponed(job, error)``, ``cancelled(job)``; ``hung(count)`` when so many handlers go on
        after their time that no job is taken (``max_hung``); of all jobs, wherever they run, ``job
        succeeded``, ``job retrying``, ``job failed``, ``job postponed``, ``job progress`` with id and data.

        It runs in a copy of the caller's context, and sees its context variables.
        """
        self._listeners.on(event, fn)
        self._session.listened_to(event)
        return self

    def once(self, event: QueueEventName, fn: Listener) -> Self:
        """Call ``fn`` at the next ``event`` only."""
        self._listeners.on(event, fn, once=True)
        self._session.listened_to(event)
        return self

    def off(self, event: QueueEventName, fn: Listener) -> Self:
        """Stop calling ``fn``."""
        self._listeners.off(event, fn)
        return self

    def emit(self, event: str, *args: Any) -> bool:
        """Call the queue's listeners of ``event``; return whether there were any."""
        return self._listeners.emit(event, *args)

    def report_error(self, error: BaseException) -> None:
        """Emit ``error``, or count it if it was reported lately; without a listener it is logged."""
        self._parts.error_reports.report(error)

    # Jobs: making.

    def create_job(self, data: Data | Model | None = None) -> Job[Data, Result]:
        """Return a new job with ``data``, not yet saved. What JavaScript calls falsy becomes ``{}``."""
        stored = data if type(data) is dict else payload(plain(data))
        return Job.new(self._actions, stored, now_ms=now_ms())

    async def enqueue(
        self,
        data: Data | Model | None = None,
        *,
        id: str | int | None = None,  # noqa: A002 - the record's own word
        retries: int | None = None,
        backoff: str | tuple[str, Duration] | None = None,
        timeout: Duration | None = None,  # noqa: ASYNC109 - the job's, in ms
        delay_until: datetime | float | timedelta | str | None = None,
    ) -> Job[Data, Result]:
        """Create, configure and save a job in one call; see ``Job`` for each option.

        Args:
            data: the payload; None means ``{}``. A pydantic model is stored as its JSON, and read as a dict.
                0, "" and False stay what they are, which bee-queue makes ``{}``: so a Node peer reads them,
                and writes them back if it runs the job.
            id: its name; None for the counter's next. If it exists, nothing is written, and the job that has
                it is returned as it is in Redis; its ``is_new`` is False.
            retries: further attempts after a failed one.
            backoff: ``"immediate"``, or strategy and delay.
            timeout: limit of one attempt: ms, timedelta, or text like ``30s``.
            delay_until: not before then.

        Raises:
            TypeError, ValueError: a bad option, named. RedisError: Redis did not take the job. QueueClosed.
            JobUnreadable: the id exists, and the record there is not one.
            NotReplicated: it did, but fewer replicas than ``wait_replicas`` have confirmed it.
            CancelledError: it was cancelled; a note says whether the job was withdrawn before it was sent to
                Redis, or was sent and may have been added. With an ``id``, ``get_job`` shows which.
        """
        job: Job[Data, Result] = Job.new(self._actions, data, now_ms=now_ms())
        if id is not None:
            job.set_id(id)
        if retries is not None:
            job.retries(retries)
        if backoff is not None:
            job.backoff(*((backoff,) if isinstance(backoff, str) else backoff))
        if timeout is not None:
            job.timeout(timeout)
        if delay_until is not None:
            job.delay_until(delay_until)
        return await self.save_or_find(job)

    async def save_or_find(self, job: Job[Data, Result]) -> Job[Data, Result]:
        """Save the job and return it; or return the job that has its id already, as it is in Redis.

        ``is_new`` of the returned job says which. Raises what ``Job.save`` raises, and JobUnreadable: the
        record of the existing job is not one.
        """
        return await self._actions.save_or_find(job)

    async def save_all(self, jobs: Iterable[Job[Data, Result]]) -> dict[Job[Data, Result], Exception]:
        """Put many jobs into the queue, in order, in few script calls; return those that failed, and why.

        A job whose id exists does not count as failed: its id is then None. Not atomic as a whole.

        Raises:
            RedisUnavailable: none of them was saved, because Redis is away; NotReplicated is returned, not
                raised. QueueClosed.
            CancelledError: it was cancelled; those not sent yet are withdrawn, and a note says how many.
        """
        return await self._actions.save_all(list(jobs))

    # Jobs: finding.

    async def get_job(self, job_id: str | int) -> Job[Data, Result] | None:
        """Return the job as Redis has it now, or None.

        Raises:
            JobUnreadable: its record is not one.
        """
        return await self._actions.get_job(job_id)

    async def get_jobs(
        self,
        type: JobSetName,  # noqa: A002 - bee-queue's word for it
        start: int = 0,
        end: int = 100,
        size: int = 100,
    ) -> list[Job[Data, Result]]:
        """Return jobs by state; one with an unreadable record is left out, with an ``error`` event.

        Args:
            type: ``waiting``, ``active``, ``delayed`` (by ``start`` and ``end``, both inclusive; index 0 of
                ``waiting`` was queued last), ``succeeded`` or ``failed`` (``size`` of them, in no order).
            start: the first index.
            end: the last index.
            size: how many.

        Raises:
            ValueError: no such state (``Improper queue type``).
        """
        return await self._actions.get_jobs(type, start=start, end=end, size=size)

    async def check_health(self) -> Health:
        """Return how many jobs are in each state, and the newest automatic id."""
        await self._session.ensure()
        return (await self._reader.stats(with_age=False)).health()

    async def stats(self) -> Stats:
        """Return the counts of ``check_health``, living workers, and the age of the oldest waiting job."""
        await self._session.ensure()
        return await self._reader.stats()

    async def is_in_set(self, job_id: str, name: str) -> bool:
        """Return whether the id is in the named set."""
        return await self._actions.is_in_set(job_id, name)

    async def job_state(self, job_id: str | int) -> JobState | None:
        """Return a job's state, its record and how it ended; None if Redis has nothing of it."""
        await self._session.ensure()
        text = check_job_id(job_id)
        return None if text is None else await self._reader.job_state(text)

    async def result_of(self, job: Job, timeout: Duration | None) -> Any:  # noqa: ASYNC109 - in ms
        """Wait for the job's end; see ``Job.result``."""
        return await self._actions.result(job, timeout)

    # Jobs: changing.

    async def remove_job(self, job_id: str | int) -> Self:
        """Remove a job from wherever it is. The outcome of a running one is dropped.

        A beeq worker stops its handler at the next heartbeat, and emits ``error`` with ``JobLost``.
        """
        await self._actions.remove_by_id(job_id)
        return self

    async def cancel_job(self, job_id: str | int) -> bool:
        """End a job that waits, is delayed, or runs; return whether there was one to end.

        Its record is deleted; its listeners and ``result`` see a failure, "was cancelled". A job that runs
        on a beeq worker is stopped there: a coroutine is cancelled, a thread can only be abandoned. A
        Node worker cannot be stopped; when its handler ends it writes the job's record again.
        """
        return await self._actions.cancel_by_id(job_id)

    async def retry_job(self, job: Job) -> bool:
        """Queue a failed job again; see ``Job.retry``."""
        return await self._actions.retry(job)

    async def report_progress(self, job: Job, value: Any) -> int:
        """Publish a job's progress; see ``Job.report_progress``."""
        return await self._actions.report_progress(job, value)

    async def remember(self, job: Job, facts: dict[str, Any]) -> None:
        """Keep facts with a running job; see ``Job.remember``."""
        await self._actions.remember(job, facts)

    # Working.

    @overload
    def process(
        self, handler: SomeHandler, concurrency: int = 1, *, executor: Executor = "auto"
    ) -> SomeHandler: ...
    @overload
    def process(
        self, handler: None = None, concurrency: int = 1, *, executor: Executor = "auto"
    ) -> Callable[[SomeHandler], SomeHandler]: ...
    def process(
        self, handler: Handler | None = None, concurrency: int = 1, *, executor: Executor = "auto"
    ) -> Handler | Callable[[Handler], Handler]:
        """Run ``handler`` for each job, up to ``concurrency`` at once. Also a decorator.

        Starts at once inside a running loop, else in ``run``. A coroutine function runs in the loop; a
        plain function in a thread, with the blocking face of the job. Each attempt runs in a copy of the
        context of the code that calls ``run``, or else ``process``, not of the code that opened the queue.

        Args:
            handler: the function; None makes this a decorator, which returns the function itself.
            concurrency: how many jobs may run here at once.
            executor: ``thread`` insists on a plain function. ``process`` runs it in child processes, up
                to ``concurrency`` of them, each started when first needed and used again: for work
                that needs a core of its own, or must be stopped for certain. A timeout, a cancelled
                job and ``close`` kill the child, with all it has started in its process group; a
                child that dies fails the attempt. The child imports the handler by its name, so it is
                a function at the top level of a module, or something that can be pickled; what
                starts the work belongs below ``if __name__ == "__main__":``. Data, options and the
                result travel as JSON. The job has its blocking face, except that no events are heard.

        Raises:
            RuntimeError: the queue does not work (``is_worker=False``), or has a handler. QueueClosed.
            TypeError: the handler cannot run there: a coroutine function in a thread or process, a
                lambda or a function inside a function in a process.
            TypeError, ValueError: a concurrency that is not a positive int, an unknown executor.
        """
        return self._consumer.process(handler, concurrency, executor)

    @property
    def handler(self) -> Handler | None:
        """What ``process`` was given, or None."""
        return self._consumer.handler

    @property
    def concurrency(self) -> int:
        """How many jobs may run here at once; may be set until work begins."""
        return self._consumer.concurrency

    @concurrency.setter
    def concurrency(self, concurrency: int) -> None:
        self._consumer.concurrency = whole("concurrency", concurrency, at_least=1)

    @property
    def max_hung(self) -> int | None:
        """The setting of that name; may be set until work begins."""
        return self._consumer.max_hung

    @max_hung.setter
    def max_hung(self, max_hung: int | None) -> None:
        self._consumer.max_hung = None if max_hung is None else whole("max_hung", max_hung, at_least=1)

    async def run(self, burst: bool = False, *, catch_signals: bool = True) -> None:
        """Work until SIGINT, SIGTERM or ``close``; with ``burst`` until nothing is left that is due.

        The first signal lets running jobs end, for up to 30 s, the second hands them back, and this returns;
        one line of the log says what did not end. The third goes to the program's own handler, which as a
        rule ends it. All queues that run in one loop react to them. Signals are left alone where the host
        handles SIGINT or SIGTERM, as a web server does (the worker ends with its host), in another thread
        than the main one, and with ``catch_signals`` off.

        If this is cancelled, the worker takes no more jobs, and those that run go back to the front of the
        queue, as at the end of ``close``: within 3 s CancelledError is raised on, also if it is cancelled
        again. The queue stays open.

        Raises:
            TimeoutError: a ``close`` raised it.
            HandlersHang: ``max_hung`` handlers hang in a burst; the other jobs stay in the queue.
            QueuePaused: jobs still wait at the end of a burst, because the queue is paused.
            CancelledError: this was cancelled.
        """
        await self._consumer.run(burst=burst, catch_signals=catch_signals)

    def worker_health(self) -> WorkerHealth:
        """Return the state of this queue's work in this process: its background duties and its places.

        Does not ask Redis, and may be called in any thread, also while the event loop is blocked.
        """
        return self._consumer.health()

    async def check_stalled_jobs(self, interval: Duration | None = None) -> int:
        """Look for stalled jobs now; return how many went back to the queue.

        Workers do this by themselves. With ``interval`` (ms, timedelta, or text like ``30s``) it is repeated
        until ``close``.
        """
        return await self._session.check_stalled_jobs(
            milliseconds("interval", interval, at_least=1) if interval else None
        )
