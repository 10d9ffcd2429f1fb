"""The methods of ``Queue`` for operators."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from functools import partial
from typing import Unpack

from beeq.client.context import QueueContext
from beeq.client.job_actions import JobActions
from beeq.client.reader import UNBOUNDED
from beeq.client.session import Session
from beeq.job import Job
from beeq.operations.diagnosis.doctor import Doctor
from beeq.operations.diagnosis.findings import Finding
from beeq.operations.diagnosis.places import MOST_LOOKED_AT, OnLooked
from beeq.operations.duplicates import duplicated
from beeq.operations.explanation.facts import Explainer
from beeq.operations.explanation.reasons import Explanation
from beeq.operations.history.points import History
from beeq.operations.history.reading import read_history
from beeq.operations.inspection import Inspector, JobDetails
from beeq.operations.job_filter import STATES, UNFINISHED, Filters, JobFilter, State
from beeq.operations.live_workers import Activity, LiveWorker, Workers
from beeq.operations.many import BulkCounts, FoundJob, JobPage, Many, OnProgress
from beeq.operations.pauses import Pauses
from beeq.operations.watching import JobNews, Watcher
from beeq.process import user_name
from beeq.protocol.keys import EndedSetName
from beeq.protocol.options import check_job_id
from beeq.protocol.pauses import MAX_BY_CHARACTERS, Pause
from beeq.settings import Duration, milliseconds, whole


class OperatorMethods:
    """Reads a queue, finds and changes many jobs by a filter (see ``Filters``), repairs and pauses it.

    Many jobs are read in pages, and changed by calls of a hundred at most; each only if it is still as it was
    read: a job that moves, ends or changes meanwhile is left alone, and counted as ``moved``. Not atomic as a
    whole; after an interruption call again. ``wait_replicas`` does not apply: a second call finds what a
    failover has undone. With ``dry_run`` the jobs are counted only. ``on_progress`` is called after each page
    with the counts so far (for the blocking queue, in its background loop's thread).

    All raise TypeError or ValueError for an invalid filter, which they name; RedisError; QueueClosed.
    """

    def __init__(self, context: QueueContext, session: Session, actions: JobActions) -> None:
        self._many = Many(context, session=session, actions=actions)
        self._inspector = Inspector(context, session, actions)
        self._watcher = Watcher(context, session, self._inspector)
        self._explainer = Explainer(context, session, self._inspector)
        self._doctor = Doctor(context, session)
        self._clean = actions.clean
        self._pauses = Pauses(context, session)
        self._workers = Workers(context, session)
        self._duplicate = partial(duplicated, actions)
        self._read_history = partial(read_history, context.pipeline, context.keys)
        self._ensure_open = session.ensure

    def find_jobs(
        self,
        *,
        max_bytes: int = UNBOUNDED,
        on_progress: OnProgress | None = None,
        **filters: Unpack[Filters],
    ) -> AsyncIterator[FoundJob[Job]]:
        """Yield the jobs that match the filters, in all states unless ``state`` names some.

        Waiting, delayed and active jobs come in the order in which they run, finished ones in none. A job
        that moves from state to state meanwhile may be missed, or found twice. A record of more than
        ``max_bytes`` is not read: its job has no data, and no error.
        """
        return self._many.find(JobFilter.of(STATES, **filters), max_bytes=max_bytes, on_progress=on_progress)

    async def page_of_jobs(
        self, state: State, *, at: str = "", count: int = 50, max_bytes: int = UNBOUNDED
    ) -> JobPage[Job]:
        """Return some jobs of a state, from a place on.

        Args:
            state: one of ``STATES``.
            at: where the page begins: ``next_at`` of the page before; "" is the beginning.
            count: how many jobs; fewer come where they are large, sometimes some more of finished ones.
            max_bytes: a record that is longer is not read: its job has no data, and an error that says so.
        """
        (known,) = JobFilter.of(STATES, state=state).states
        some = whole("count", count, at_least=1)
        return await self._many.page(known, at=at, count=some, max_bytes=max_bytes)

    async def inspect_job(self, job_id: str | int, *, max_bytes: int = UNBOUNDED) -> JobDetails[Job] | None:
        """Return all that Redis knows of a job: where it is, how it ended, which attempts failed; or None.

        A record, or a result, of more than ``max_bytes`` is not read: ``problem`` says so of the record.
        """
        text = check_job_id(job_id)
        return None if text is None else await self._inspector.inspect(text, max_bytes=max_bytes)

    async def explain(
        self, job_id: str | int, *, is_quick: bool = False, details: JobDetails[Job] | None = None
    ) -> Explanation:
        """Return why a job is where it is: what keeps it there, and what happens next. Writes nothing.

        For a waiting job it measures for 0.4 s how fast the jobs before it are taken, but not with
        ``is_quick``, which also does not count jobs before it beyond a quarter of a million. ``details`` that
        have just been read are not read again.
        """
        text = check_job_id(job_id) or ""
        return await self._explainer.explain(text, is_quick=is_quick, details=details)

    async def diagnose(
        self, *, on_looked: OnLooked | None = None, most_ids: int = MOST_LOOKED_AT
    ) -> list[Finding]:
        """Return what is wrong with the queue. Changes nothing.

        Every id is looked at, up to ``most_ids`` (two million) of each list and set, in pages; ``on_looked``
        is called after each with their number.
        """
        return await self._doctor.diagnose(on_looked, most_ids=most_ids)

    async def diagnose_server(self) -> list[Finding]:
        """Return what is wrong with Redis: settings, clock, version, and the user's missing rights.

        Changes nothing, but for a key of the queue that is there while the user's rights are tried.
        """
        return await self._doctor.diagnose_server()

    async def repair(self, findings: Iterable[Finding]) -> int:
        """Do what the findings' ``fix`` says, to the ids that they name; return how many were repaired.

        An id that is somewhere else by now is left alone.
        """
        return await self._doctor.repair(findings)

    def watch_job(self, job_id: str | int, timeout: Duration | None = None) -> AsyncGenerator[JobNews, None]:
        """Yield what happens to a job until it has ended, by workers of any kind; see ``JobNews``.

        The first is where it is now, the last how it ended; for a missing job only ``gone``. While Redis is
        away it waits.

        Args:
            job_id: the job's id.
            timeout: raise TimeoutError then: ms, timedelta, or text like ``30s``; None: never.
        """
        timeout_ms = None if timeout is None else milliseconds("timeout", timeout)
        return self._watcher.watch(check_job_id(job_id) or "", timeout_ms=timeout_ms)

    async def duplicate_job(self, job: Job) -> Job:
        """Save a new job with the data of one, its timeout and backoff, and the retries it has; return that.

        Raises what ``Job.save`` raises.
        """
        return await self._duplicate(job)

    async def retry_many(
        self, *, dry_run: bool = False, on_progress: OnProgress | None = None, **filters: Unpack[Filters]
    ) -> BulkCounts:
        """Queue failed jobs again; see ``Job.retry``."""
        meant = JobFilter.of(("failed",), **filters)
        return await self._many.act("retry", meant, dry_run=dry_run, on_progress=on_progress)

    async def run_many(
        self, *, dry_run: bool = False, on_progress: OnProgress | None = None, **filters: Unpack[Filters]
    ) -> BulkCounts:
        """Queue delayed jobs now, before they are due."""
        meant = JobFilter.of(("delayed",), **filters)
        return await self._many.act("run", meant, dry_run=dry_run, on_progress=on_progress)

    async def cancel_many(
        self, *, dry_run: bool = False, on_progress: OnProgress | None = None, **filters: Unpack[Filters]
    ) -> BulkCounts:
        """End jobs that run, wait or are delayed; ``state`` may choose among these. See ``cancel_job``."""
        meant = JobFilter.of(UNFINISHED, **filters)
        return await self._many.act("cancel", meant, dry_run=dry_run, on_progress=on_progress)

    async def remove_many(
        self, *, dry_run: bool = False, on_progress: OnProgress | None = None, **filters: Unpack[Filters]
    ) -> BulkCounts:
        """Remove jobs; ``state`` has to be named. See ``remove_job``, for those that run, too."""
        if "state" not in filters:
            raise ValueError(f"remove_many needs a state, of {', '.join(STATES)}")
        meant = JobFilter.of(STATES, **filters)
        return await self._many.act("remove", meant, dry_run=dry_run, on_progress=on_progress)

    async def purge(
        self,
        state: State,
        older_than: Duration | None = None,
        *,
        dry_run: bool = False,
        on_progress: OnProgress | None = None,
    ) -> BulkCounts:
        """Remove all jobs of a state, or those that are older than this (ms, timedelta, or text like ``7d``).

        Jobs that run cannot be purged: ``cancel_many(state="active")`` ends them.
        """
        states = tuple(each for each in STATES if each != "active")
        meant = JobFilter.of(states, state=state, older_than=older_than)
        return await self._many.act("remove", meant, dry_run=dry_run, on_progress=on_progress)

    async def clean(self, kind: EndedSetName, older_than: Duration) -> int:
        """Remove finished jobs created longer ago than ``older_than``; return how many.

        A job that is retried or saved again meanwhile stays.

        Args:
            kind: ``succeeded`` or ``failed``.
            older_than: ms, timedelta, or text like ``7d``, by the creation time in the record.

        Raises:
            ValueError: another kind of job.
        """
        return await self._clean(kind, older_than_ms=milliseconds("older_than", older_than))

    async def run_job(self, job_id: str | int) -> bool:
        """Queue a delayed job now; return whether it was delayed."""
        text = check_job_id(job_id)
        return text is not None and await self._many.run_now(text)

    async def pause(
        self,
        reason: str = "",
        *,
        for_: Duration | None = None,
        everyone: bool = False,
        by: str | None = None,
    ) -> Pause:
        """Have beeq's workers take no more jobs from the queue within a second; running jobs go on.

        Workers that start later take none, either. If the queue is paused already, the later call's reason
        and end apply. Producers and delayed jobs go on; so do workers of an earlier version.

        Args:
            reason: why, for other operators; at most 500 characters.
            for_: how long (ms, timedelta, or text like ``10m``); None: until ``resume``. It ends by itself,
                also if no process of beeq's is alive.
            everyone: hide the waiting jobs from Node workers, too. They are moved aside at once, and a beeq
                worker repeats that each second for new, raised and retried jobs; until then a Node worker
                may take one. beeq's own methods treat hidden jobs as waiting ones; Node's counts, lists and
                ``removeJob`` do not see them.
            by: who pauses; None: ``user@host`` of this process.

        Raises:
            NoWorkerLives: ``everyone``, and no beeq worker works on the queue. TypeError, ValueError: a bad
                argument, named. RedisError; QueueClosed.
        """
        who = user_name()[:MAX_BY_CHARACTERS] if by is None else by
        return await self._pauses.begin(reason, lasting=for_, everyone=everyone, by=who)

    async def resume(self) -> Pause | None:
        """End the pause, and return it; None: the queue was not paused.

        Hidden jobs come back in front, the oldest first; jobs enqueued since are behind them.
        """
        return await self._pauses.end()

    async def paused(self) -> Pause | None:
        """Return since when the queue is paused, who paused it, why and until when; None if it is not."""
        return await self._pauses.now()

    async def workers(self) -> list[LiveWorker]:
        """Return the live beeq workers and their jobs; those with the longest jobs first.

        A job is listed once it has run for half a second, as a rule within another half. Node's workers are
        visible only by the jobs that they run, see ``activity``. This writes nothing.
        """
        return await self._workers.now()

    async def activity(self) -> Activity:
        """Return the live workers, and the active jobs that none of them has noted, such as Node's."""
        return await self._workers.activity()

    async def history(self, last: Duration = "1h", *, step: Duration | None = None) -> History:
        """Return what has happened in the queue: in, done, failed, waiting, waits and durations, over time.

        beeq's workers count their work. A worker or the page samples the queue each minute; minutes without a
        sample are gaps. 24 hours are kept by the minute and 30 days by the hour.

        Args:
            last: how far back (ms, timedelta, or text like ``7d``): up to a day by the minute, and beyond by
                the hour.
            step: how long each point is, in whole minutes or hours; None: so that there are at most 120.
        """
        last_ms = milliseconds("last", last)
        step_ms = None if step is None else milliseconds("step", step)
        await self._ensure_open()
        return await self._read_history(last_ms=last_ms, step_ms=step_ms)
