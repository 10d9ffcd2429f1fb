"""All that Redis knows of one job, for a person."""

from dataclasses import dataclass
from typing import Generic

from beeq.client.context import QueueContext
from beeq.client.job_actions import JobActions
from beeq.client.reader import UNBOUNDED, Ended, kept_outcome
from beeq.client.session import Session
from beeq.errors import JobFailed, JobUnreadable
from beeq.job import Job
from beeq.operations.job_filter import newest_trace
from beeq.operations.many import JobT, record_of_bytes
from beeq.protocol.attempts import FailedAttempt, decode_attempts
from beeq.protocol.options import created_ms_of, whole_in
from beeq.redis import scripts


@dataclass(frozen=True, slots=True)
class JobDetails(Generic[JobT]):
    """A job, where it is, and the outcomes of its attempts.

    Attributes:
        job: the job, as Redis has it; None if its record is gone, or cannot be read.
        state: ``waiting``, ``active``, ``delayed``, ``succeeded``, ``failed`` or ``cancelled``; ``nowhere``
            for a record whose id is in no list and no set, as when a peer died while saving it.
        created_ms: when it was created, in ms since the epoch; 0: unknown.
        due_ms: when it is due, if it is delayed.
        ahead: how many jobs run before it, if it waits; None if they are a quarter of a million or more.
        deliveries: how often beeq workers have taken it, since it was saved, ended, or was retried by hand.
        ended: how it ended, if that is known: with a value, or with an error (of a Node worker, the trace).
        attempts: those that failed on beeq workers, the newest first. Attempts on Node workers are in the
            job's ``options["stacktraces"]`` only, which has the traces of all.
        problem: why the record cannot be read, or "".
        record_bytes: how long the record is.
        result_bytes: how long its stored result is.
        is_too_long: whether ``job`` is None only because the record is longer than ``max_bytes``.
    """

    job: JobT | None
    state: str
    created_ms: int
    due_ms: float | None
    ahead: int | None
    deliveries: int
    ended: Ended | None
    attempts: list[FailedAttempt]
    problem: str = ""
    record_bytes: int = 0
    result_bytes: int = 0
    is_too_long: bool = False


class Inspector:
    """Looks at single jobs of one queue."""

    def __init__(self, context: QueueContext, session: Session, actions: JobActions) -> None:
        self._context = context
        self._session = session
        self._actions = actions

    async def inspect(self, job_id: str, *, max_bytes: int = UNBOUNDED) -> JobDetails[Job] | None:
        """Return what is known of the job, or None.

        A record, or a result, of more than ``max_bytes`` is not read.
        """
        await self._session.ensure()
        moment = self._context.event_hub.moment
        state, raw, kept, lines, claim, where, record_bytes, kept_bytes = await scripts.inspect_job(
            self._context.pipeline, self._context.keys, job_id=job_id, longest=max_bytes
        )
        is_too_long = record_bytes > max_bytes
        is_there = raw is not None or is_too_long
        if not is_there and kept is None:
            return None
        job, problem, created_ms = None, "", None
        if is_too_long:
            problem = record_of_bytes(record_bytes)
        if raw is not None:
            try:
                job = self._actions.found(job_id, raw, since=moment)
                created_ms = created_ms_of(job.options)
            except JobUnreadable as error:
                problem = str(error)
        ended = None
        if kept is not None and (not is_there or state in (b"succeeded", b"failed")):
            ended = kept_outcome(job_id, kept, created_ms=created_ms)
        if not is_there and ended is None:
            return None
        if ended is None and job is not None and state == b"failed":
            ended = Ended(error=JobFailed(job_id, newest_trace(job) or "the job failed"))
        name = state.decode()
        if not is_there:
            is_cancelled = ended is not None and ended.is_cancelled
            has_failed = ended is not None and ended.error is not None
            name = "cancelled" if is_cancelled else "failed" if has_failed else "succeeded"
        deliveries = b"" if claim is None else claim.rpartition(b":")[2]
        return JobDetails(
            job,
            name or "nowhere",
            created_ms or 0,
            float(where) if state == b"delayed" else None,
            int(where) if state == b"waiting" and int(where) >= 0 else None,
            whole_in(deliveries),
            ended,
            [] if lines is None else decode_attempts(lines, created_ms=created_ms),
            problem,
            record_bytes,
            kept_bytes if kept is None else len(kept),
            is_too_long,
        )
