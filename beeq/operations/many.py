"""Finds the jobs that match a filter, and acts on many at once; on each only if it is still as it was read.

A call to Redis acts on a hundred jobs at most. Other clients get their turns in between.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from beeq.client.commands import CANCELLED_MS, portions
from beeq.client.context import QueueContext
from beeq.client.job_actions import JobActions
from beeq.client.reader import UNBOUNDED
from beeq.client.session import Session
from beeq.errors import JobUnreadable
from beeq.job import Job
from beeq.operations.job_filter import JobFilter, State, newest_trace
from beeq.operations.scans import Page, PagePlace, Scan
from beeq.protocol.codec import Record, decode_record, dumps, encode_record
from beeq.protocol.events import encode_event
from beeq.protocol.options import created_ms_of, whole_in
from beeq.redis import scripts

JobT = TypeVar("JobT")
#: About how many bytes of records one call reads.
_READ_BYTES = 500_000
#: A page of large jobs is shorter: it is read in so many calls at most.
_CALLS_A_PAGE = 6


@dataclass(frozen=True, slots=True)
class FoundJob(Generic[JobT]):
    """A job, and where it was found.

    Attributes:
        job: the job, as Redis had it. One whose record cannot be read has no data.
        state: ``waiting``, ``active``, ``delayed``, ``succeeded`` or ``failed``.
        created_ms: when it was created, in ms since the epoch; 0: unknown.
        due_ms: when a delayed job is due, in ms since the epoch; None for the others.
        error: the first line of its newest error: type and text; "" if it has none.
        failed_ms: when its newest attempt that failed on a beeq worker ended; 0: none did.
    """

    job: JobT
    state: State
    created_ms: int
    due_ms: float | None
    error: str
    failed_ms: int = 0


@dataclass(frozen=True, slots=True)
class JobPage(Generic[JobT]):
    """Some jobs of one state.

    Attributes:
        jobs: in the order in which they run; finished ones in none. One without a record is left out.
        next_at: where the next page begins, for ``page_of_jobs``; None: this is the last.
    """

    jobs: list[FoundJob[JobT]]
    next_at: str | None


@dataclass(slots=True)
class BulkCounts:
    """How many jobs there were, and their outcomes.

    Attributes:
        seen: read.
        matched: matched by the filter.
        done: retried, removed, run, cancelled. 0 in a dry run.
        moved: matched, and left alone: they have moved, ended or changed meanwhile.
        unreadable: matched, and left alone: an unreadable record cannot be retried. In a search: those that
            were not read, because they are longer than ``max_bytes``.
    """

    seen: int = 0
    matched: int = 0
    done: int = 0
    moved: int = 0
    unreadable: int = 0


#: Called now and then with the counts so far; a copy of its own.
OnProgress = Callable[[BulkCounts], object]


@dataclass(slots=True)
class _Match:
    """A job that matches the filter. ``record`` is None if it cannot be read, or is ``unread`` bytes long."""

    job_id: bytes
    raw: bytes
    record: Record | None
    failed_ms: int  # when its newest failed attempt ended; 0: none is noted
    unread: int = 0

    @property
    def created_ms(self) -> int:
        return 0 if self.record is None else created_ms_of(self.record.options)

    @property
    def last_ms(self) -> int:
        return max(self.created_ms, self.failed_ms)


@dataclass(slots=True)
class _Portion:
    """What was read at once: so many jobs of one page, and those that match."""

    seen: int
    matches: list[_Match]
    page: Page
    scan: Scan
    unread: int = 0


class Many:
    """Finds and changes many jobs of one queue. ``Queue`` documents what each method promises."""

    def __init__(self, context: QueueContext, *, session: Session, actions: JobActions) -> None:
        self._context = context
        self._session = session
        self._actions = actions

    async def find(
        self, job_filter: JobFilter, *, max_bytes: int = UNBOUNDED, on_progress: OnProgress | None = None
    ) -> AsyncIterator[FoundJob[Job]]:
        """Yield the matching jobs."""
        await self._session.ensure()
        moment, counts = self._context.event_hub.moment, BulkCounts()
        async for portion in self._portions(job_filter, max_bytes=max_bytes):
            counts.seen += portion.seen
            counts.matched += len(portion.matches)
            counts.unreadable += portion.unread
            if on_progress is not None:
                on_progress(replace(counts))
            for match in portion.matches:
                yield self._found(match, portion, moment)

    def _found(self, match: _Match, portion: _Portion, moment: int) -> FoundJob[Job]:
        state, job_id = portion.scan.state, match.job_id.decode(errors="replace")
        due = portion.page.due.get(match.job_id)
        due_ms = None if due is None else float(due)
        if match.unread:
            return self._empty(job_id, state, due_ms, record_of_bytes(match.unread), match.failed_ms)
        try:
            job = self._actions.found(job_id, match.raw, since=moment)
        except JobUnreadable as error:
            return self._empty(job_id, state, due_ms, str(error), match.failed_ms)
        error_line = newest_trace(match.record).partition("\n")[0] if match.record is not None else ""
        return FoundJob(job, state, match.created_ms, due_ms, error_line, match.failed_ms)

    def _empty(
        self, job_id: str, state: State, due_ms: float | None, problem: str, failed_ms: int
    ) -> FoundJob[Job]:
        """Return a job whose record is not known."""
        empty = Record({}, {"timestamp": 0, "stacktraces": []}, state)
        return FoundJob(Job(self._actions, empty, job_id), state, 0, due_ms, problem, failed_ms)

    async def page(self, state: State, *, at: str, count: int, max_bytes: int = UNBOUNDED) -> JobPage[Job]:
        """Return some jobs of a state, from a place on; fewer than ``count`` where they are large."""
        await self._session.ensure()
        moment = self._context.event_hub.moment
        scan = Scan(self._context.pipeline, self._context.keys, state)
        page, begins, next_place = await scan.page_at(PagePlace.of(at), count)
        jobs: list[FoundJob[Job]] = []
        read = calls = 0
        while read < len(page.ids):
            if calls == _CALLS_A_PAGE:
                return JobPage(jobs, begins.after(read).text)
            seen, matches = await self._read(page.ids[read:], max_bytes=max_bytes)
            portion = _Portion(seen, matches, page, scan)
            jobs += [self._found(match, portion, moment) for match in matches]
            read += seen
            calls += 1
        return JobPage(jobs, None if next_place is None else next_place.text)

    async def _portions(
        self, job_filter: JobFilter, *, max_bytes: int = UNBOUNDED
    ) -> AsyncIterator[_Portion]:
        """Yield portions that are read at once, until ``limit`` jobs have matched."""
        now_ms = self._context.now_ms()
        left = job_filter.limit
        for state in job_filter.states:
            scan = Scan(self._context.pipeline, self._context.keys, state)
            while (page := await scan.page()) is not None:
                async for jobs in self._survey(page.ids, max_bytes=max_bytes):
                    matches = [
                        match
                        for match in jobs
                        if job_filter.matches(match.record, last_ms=match.last_ms, now_ms=now_ms)
                    ][:left]
                    left = None if left is None else left - len(matches)
                    yield _Portion(len(jobs), matches, page, scan, sum(bool(job.unread) for job in jobs))
                    if left == 0:
                        return

    async def _survey(self, ids: list[bytes], *, max_bytes: int) -> AsyncIterator[list[_Match]]:
        """Yield the jobs with a record, as many at once as one call reads."""
        while ids:
            count, matches = await self._read(ids, max_bytes=max_bytes)
            yield matches
            ids = ids[count:]

    async def _read(self, ids: list[bytes], *, max_bytes: int) -> tuple[int, list[_Match]]:
        """Read as many of the jobs as one call reads; return how many, and those with a record."""
        found = await scripts.survey_jobs(
            self._context.pipeline,
            self._context.keys,
            max_bytes=_READ_BYTES,
            longest=max_bytes,
            ids=((job_id,) for job_id in ids),
        )
        count = len(found) // 2
        return count, [
            _match_of(job_id, raw, failed_ms)
            for job_id, raw, failed_ms in zip(ids[:count], found[::2], found[1::2], strict=True)
            if raw is not None
        ]

    async def act(
        self, verb: str, job_filter: JobFilter, *, dry_run: bool, on_progress: OnProgress | None
    ) -> BulkCounts:
        """Do ``verb`` (``retry``, ``remove``, ``run`` or ``cancel``) to the matching jobs."""
        await self._session.ensure_hearing()
        counts = BulkCounts()
        async for portion in self._portions(job_filter):
            counts.seen += portion.seen
            counts.matched += len(portion.matches)
            if not dry_run:
                await self._act_on(verb, portion, counts)
            if on_progress is not None:
                on_progress(replace(counts))
        return counts

    async def _act_on(self, verb: str, portion: _Portion, counts: BulkCounts) -> None:
        by_id = {match.job_id: match for match in portion.matches}
        if verb == "retry":
            for job_id in [job_id for job_id, match in by_id.items() if not _is_writable(match.record)]:
                del by_id[job_id]
                counts.unreadable += 1
        for jobs in portions((match.job_id, match.raw) for match in by_id.values()):
            matches = [by_id[job_id] for job_id, _raw in jobs]
            while matches:
                facts = await self._call(verb, portion, matches)
                done = [match.job_id for match, fact in zip(matches, facts, strict=False) if fact]
                counts.done += len(done)
                counts.moved += len(facts) - len(done)
                portion.scan.gone(done)
                if verb == "remove":
                    for job_id in done:
                        self._actions.forget(job_id.decode(errors="replace"))
                matches = matches[len(facts) :]

    async def _call(self, verb: str, portion: _Portion, matches: Sequence[_Match]) -> list[int]:
        """Act on some jobs of one state; return whether it was done, of each or at least of the first."""
        state = portion.scan.state
        pipeline, keys = self._context.pipeline, self._context.keys
        outbox_limit = self._context.settings.outbox_limit
        facts: list[int]
        if verb == "retry":
            facts = await scripts.retry_jobs(
                pipeline, keys, outbox_limit=outbox_limit, jobs=(_retried(match) for match in matches)
            )
        elif verb == "run":
            facts = await scripts.run_jobs(pipeline, keys, ids=((match.job_id,) for match in matches))
        elif state in ("succeeded", "failed"):
            facts = await scripts.clean_jobs(
                pipeline,
                keys,
                state=state,
                outbox_limit=outbox_limit,
                jobs=((match.job_id, match.raw) for match in matches),
            )
        else:
            facts = await scripts.withdraw_jobs(
                pipeline,
                keys,
                state=state,
                start=portion.page.start,
                span=len(portion.page.ids),
                keep_ms=self._context.settings.result_ttl,
                memory_ms=CANCELLED_MS,
                events=keys.events,
                outbox_limit=outbox_limit,
                jobs=(_withdrawn(match, has_event=verb == "cancel") for match in matches),
            )
        return facts

    async def run_now(self, job_id: str) -> bool:
        """Queue the delayed job now; return whether it was delayed."""
        await self._session.ensure()
        (fact,) = await scripts.run_jobs(self._context.pipeline, self._context.keys, ids=[(job_id,)])
        return bool(fact)


def record_of_bytes(count: int) -> str:
    """Return the text on a job whose record is longer than ``max_bytes``."""
    return f"its record of {count} bytes was not read"


def _match_of(job_id: bytes, raw: bytes | int, failed_ms: bytes) -> _Match:
    if isinstance(raw, int):
        return _Match(job_id, b"", None, whole_in(failed_ms), raw)
    try:
        record = decode_record(job_id.decode(errors="replace"), raw, now_ms=0)
    except JobUnreadable:
        record = None
    return _Match(job_id, raw, record, whole_in(failed_ms))


def _is_writable(record: Record | None) -> bool:
    """Return whether the record can be written again; JSON that was nested too deeply cannot."""
    try:
        return record is not None and bool(encode_record(record))
    except TypeError:
        return False


def _retried(match: _Match) -> tuple[Any, ...]:
    """Return id, record as it was read, and the record of the job that waits again."""
    assert match.record is not None  # noqa: S101 - what cannot be read was left out
    return match.job_id, match.raw, encode_record(replace(match.record, status="retrying"))


def _withdrawn(match: _Match, *, has_event: bool) -> tuple[Any, ...]:
    """Return id, record as it was read, and where the job is cancelled the outcome to keep and the event."""
    if not has_event:
        return match.job_id, match.raw, b"", b""
    job_id = match.job_id.decode(errors="replace")
    reason = f"Job {job_id} was cancelled"
    keep = b"%d:c%b" % (match.created_ms, dumps(reason))
    return match.job_id, match.raw, keep, encode_event(job_id, "failed", reason)
