"""Explains in sentences why a job is where it is. Pure: the caller brings Redis's data and clock."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from beeq.protocol.options import SAFE_INTEGER, whole_in
from beeq.protocol.pauses import Pause
from beeq.settings import show_duration

ReasonKind: TypeAlias = Literal[
    "paused", "hidden", "ahead", "next", "no-worker", "not-taking", "places-taken", "retry", "postponed",
    "running", "node-worker", "silent", "lost", "stalled-before",
    "due", "overdue", "failed", "succeeded", "cancelled",
    "several-places", "nowhere", "unreadable", "missing",
]  # fmt: skip
#: If a delayed job is overdue for so long, no process raises delayed jobs.
_OVERDUE_MS = 5000
#: A worker beats each 10 s at least; after so long a beat is late.
LATE_BEAT_MS = 12_000
_LONGEST_ERROR = 300
#: A living worker has noted a job, and removed its mark, so long after its heartbeat is due.
_SURE_MS, _LONGEST_BEAT_MS = 1000, 10_000
_SHORTEST_SURE_MS = 2500
#: An id with more digits does not come from a counter.
_MOST_DIGITS = 17


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason, for a program by its ``kind``, for a person as a sentence without its full stop."""

    kind: ReasonKind
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is where it is.

    Attributes:
        job_id: the job.
        queue_name: its queue.
        state: as in ``JobDetails``; ``missing`` if Redis has nothing of it.
        reasons: what keeps it there, what happens next, and what has happened; the weightiest first.
    """

    job_id: str
    queue_name: str
    state: str
    reasons: tuple[Reason, ...]

    @property
    def sentences(self) -> list[str]:
        """The reasons as text."""
        return [reason.text for reason in self.reasons]


@dataclass(frozen=True, slots=True)
class Owner:
    """The worker process that runs a job; since when, and its last heartbeat, in ms; None: unknown."""

    name: str
    since_ms: int | None
    beat_ms: int | None


@dataclass(frozen=True, slots=True)
class JobFacts:
    """Redis's data on a job and its queue. Durations are ms, counted from its clock's ``now_ms``.

    Attributes:
        state: as in ``JobDetails``; "" if Redis has nothing of it.
        places: the lists and sets that have the id.
        problem: why its record cannot be read, or "".
        options: of the record.
        status: of the record.
        errors: of the failed attempts, the newest first; of Node's, too, as far as the record has them.
        error: how it ended, if it failed.
        due_ms: when it is due.
        ahead: how many jobs run before it; None if unknown.
        rate: jobs taken in a second, by a short look; None if none was.
        is_hidden: whether a pause hides it from Node peers.
        pause: the queue's, or None.
        workers: beeq worker processes that live.
        taking: those of them that take jobs.
        checkers: those whose heartbeat is in time, and so make stall checks.
        sees_node: whether a Node worker runs a job.
        taken, slots: how many places of these workers are taken, and how many they have; 0: unknown.
        longest: which job has run there for longest, as text.
        claim: the text of its claim; "" if none.
        deliveries: how often beeq workers have taken it.
        owner: who runs it, if that is known.
        is_marked: whether it has given no sign of life since the last stall check.
        check_ms: in how long the next stall check may begin.
        stall_interval: the setting, in ms.
        counter: the last automatic id.
    """

    now_ms: int
    stall_interval: int
    state: str = ""
    places: tuple[str, ...] = ()
    problem: str = ""
    options: dict[str, Any] | None = None
    status: str = ""
    errors: tuple[str, ...] = ()
    error: str | None = None
    due_ms: float | None = None
    ahead: int | None = None
    rate: float | None = None
    is_hidden: bool = False
    pause: Pause | None = None
    workers: int = 0
    taking: int = 0
    checkers: int = 0
    sees_node: bool = False
    taken: int = 0
    slots: int = 0
    longest: str = ""
    claim: str = ""
    deliveries: int = 0
    owner: Owner | None = None
    is_marked: bool = False
    check_ms: int = 0
    counter: int = 0


def explain(job_id: str, queue_name: str, facts: JobFacts) -> Explanation:
    """Return why the job is where it is."""
    by_state = {
        "": _missing,
        "nowhere": _nowhere,
        "waiting": _waiting,
        "active": _active,
        "delayed": _delayed,
        "failed": _failed,
        "succeeded": _succeeded,
        "cancelled": _cancelled,
    }
    reasons = list(by_state[facts.state](job_id, queue_name, facts))
    if len(facts.places) > 1:
        text = f"its id is in several places, {' and '.join(facts.places)}: beeq doctor --fix leaves one"
        reasons.insert(0, Reason("several-places", text))
    if facts.problem:
        text = f"its record cannot be read ({facts.problem}): a beeq worker that takes it fails it"
        reasons.append(Reason("unreadable", text))
    return Explanation(job_id, queue_name, facts.state or "missing", tuple(reasons))


def _missing(job_id: str, queue_name: str, facts: JobFacts) -> Iterator[Reason]:
    fates = "it was removed, or has ended and its record was dropped"
    is_number = job_id.isdecimal()
    if is_number and (len(job_id) > _MOST_DIGITS or int(job_id) > facts.counter):
        text = f"{queue_name} has given out no automatic id beyond {facts.counter}, and nobody saved this one"
    elif is_number:
        text = f"{queue_name} has given out the id {job_id}, and nothing is left of it: {fates}"
    else:
        text = f"{queue_name} has nothing of {job_id}: it was never saved, {fates}"
    yield Reason("missing", text)


def _nowhere(_job_id: str, _queue_name: str, _facts: JobFacts) -> Iterator[Reason]:
    text = "its record is in no list and no set, so nobody will run it: beeq doctor --fix puts it back"
    yield Reason("nowhere", text)


def _waiting(_job_id: str, queue_name: str, facts: JobFacts) -> Iterator[Reason]:
    yield from _pause(queue_name, facts)
    if facts.is_hidden and (facts.pause is None or not facts.pause.everyone):
        text = (
            "it is still hidden from Node workers by a pause that is over: the next beeq worker repairs that"
        )
        yield Reason("hidden", text)
    yield from _no_worker(queue_name, facts)
    if facts.slots and facts.taken >= facts.slots and facts.pause is None:
        places = "the one place" if facts.slots == 1 else f"all {facts.slots} places"
        text = f"{places} of {_workers(facts.workers)} {'is' if facts.slots == 1 else 'are'} taken"
        longest = f", for longest by {facts.longest}" if facts.longest else ""
        rest = "" if facts.ahead else ": the next one that is free is for it"
        yield Reason("places-taken", f"{text}{longest}{rest}")
    if facts.ahead is None:
        yield Reason("ahead", "more jobs run before it than were counted")
    elif facts.ahead:
        jobs = "1 job runs" if facts.ahead == 1 else f"{facts.ahead} jobs run"
        yield Reason("ahead", f"{jobs} before it{_guess(facts)}")
    else:
        yield Reason("next", "it is the next to run")
    yield from _attempts(facts)


def _guess(facts: JobFacts) -> str:
    """Return about how long that takes, if jobs were taken during the measurement."""
    if not facts.rate or not facts.ahead or facts.pause is not None:
        return ""
    about = show_duration(round(facts.ahead / facts.rate * 1000))
    return f", about {about} at {facts.rate:.3g} jobs/s, which is the rate just now"


def _pause(queue_name: str, facts: JobFacts) -> Iterator[Reason]:
    pause = facts.pause
    if pause is None:
        return
    text = (
        f"{queue_name} was paused {_ago(facts, pause.since_ms)}"
        if pause.since_ms
        else f"{queue_name} is paused"
    )
    text += f" by {pause.by}" if pause.by else ""
    text += f" ({pause.reason})" if pause.reason else ""
    text += ", for Node workers, too" if pause.everyone else ", for beeq's workers"
    if pause.until_ms is not None:
        text += f"; it ends in {show_duration(max(0, pause.until_ms - facts.now_ms))}"
    else:
        text += f": beeq resume {queue_name} ends it"
    yield Reason("paused", text)
    if facts.is_hidden and pause.everyone:
        yield Reason(
            "hidden", "it is hidden from Node workers until then, and Node's remove does not find it"
        )


def _no_worker(queue_name: str, facts: JobFacts) -> Iterator[Reason]:
    if facts.workers and not (facts.taking or facts.sees_node):
        text = (
            f"{_workers(facts.workers)} of {queue_name} takes no jobs"
            if facts.workers == 1
            else (f"{_workers(facts.workers)} of {queue_name} take no jobs")
        )
        yield Reason("not-taking", f"{text}: about to stop, or too many handlers hang there")
    if facts.workers or facts.sees_node:
        return
    text = f"no worker is seen that takes jobs from {queue_name}: no beeq worker has beaten in 30 s"
    yield Reason("no-worker", f"{text}, and no Node worker runs a job (an idle one cannot be seen)")


def _attempts(facts: JobFacts) -> Iterator[Reason]:
    """Yield the outcomes of earlier attempts, for a job that has not ended."""
    if facts.errors and facts.status != "created":
        left = whole_in(str((facts.options or {}).get("retries", 0)).encode())
        rest = f"; {left} {'retry is' if left == 1 else 'retries are'} left"
        failed = f"its last attempt failed with {_cut(facts.errors[0])}"
        more = f", of {len(facts.errors)} that failed" if len(facts.errors) > 1 else ""
        yield Reason("retry", f"{failed}{more}{rest}")
    beeq = (facts.options or {}).get("beeq")
    postponed = beeq.get("postponed") if isinstance(beeq, dict) else None
    if isinstance(postponed, int) and not isinstance(postponed, bool) and 0 < postponed < 2**53:
        yield Reason("postponed", f"its handler has put it off, for {show_duration(postponed)} in all")


def owner_of(facts: JobFacts) -> Owner | None:
    """Return the owner of an active job, but not a worker that has noted it and lost it since."""
    owner, checked_ms = facts.owner, _checked_ms(facts)
    if owner is None or facts.claim.startswith(":"):  # a stall check has taken the token away
        return None
    if owner.beat_ms is None or checked_ms is None or facts.is_marked:
        return owner
    # A stall check marks all active jobs. Only a heartbeat, or a claim, removes the mark.
    last_sign_ms = max(owner.beat_ms, owner.since_ms or 0)
    return owner if last_sign_ms >= checked_ms - _SURE_MS else None


def reason_of_loss(facts: JobFacts) -> Reason | None:
    """Return why no worker runs an active job that a beeq worker has claimed; None if that is not sure.

    It is never sure for a job without a claim, such as those of Node's workers.
    """
    if not _is_claimed(facts):
        return None
    owner = owner_of(facts)
    if owner is not None:
        beat = _beat(facts, owner)
        return None if beat.kind == "running" else beat
    checked_ms = _checked_ms(facts)
    # A worker may have taken it just now; without a beeq worker, a Node worker that makes stall checks.
    if facts.workers or 0 < facts.check_ms <= facts.stall_interval:
        if not facts.is_marked or checked_ms is None:
            return None
        sure_ms = min(facts.stall_interval / 2, _LONGEST_BEAT_MS) + _SURE_MS
        if facts.now_ms - checked_ms < max(sure_ms, _SHORTEST_SURE_MS):
            return None
    return _lost(facts)


def _is_claimed(facts: JobFacts) -> bool:
    return facts.claim.partition(":")[0] != ""


def _checked_ms(facts: JobFacts) -> int | None:
    """Return when the last stall check ended, a second ago or earlier; None if unknown."""
    checked_ms = facts.now_ms - facts.stall_interval + facts.check_ms
    return checked_ms if facts.check_ms and checked_ms <= facts.now_ms - _SURE_MS else None


def _lost(facts: JobFacts) -> Reason:
    text = "a beeq worker has taken it, and no living one says that it runs it"
    return Reason("lost", f"{text}{_requeued(facts)}")


def _active(_job_id: str, _queue_name: str, facts: JobFacts) -> Iterator[Reason]:
    owner, is_claimed = owner_of(facts), _is_claimed(facts)
    if owner is not None:
        ran = f", for {_since(facts, owner.since_ms)}" if owner.since_ms else ""
        yield Reason("running", f"it runs on {owner.name}{ran}")
        yield _beat(facts, owner)
    elif is_claimed and facts.workers and not facts.is_marked:
        text = "a beeq worker has taken it just now, or has died since the last stall check"
        yield Reason("running", text)
    elif is_claimed:
        yield _lost(facts)
    elif facts.is_marked:
        text = "no beeq worker has claimed it, and no sign of life came since the last stall check"
        yield Reason("silent", f"{text}{_requeued(facts)}")
    else:
        text = "no beeq worker has claimed it: a Node worker runs it, or took it and is gone"
        yield Reason("node-worker", text)
    if facts.deliveries > 1:
        lost = facts.deliveries - 1
        text = f"beeq workers have taken it {facts.deliveries} times, and lost it {_times(lost)}"
        yield Reason("stalled-before", text)
    yield from _attempts(facts)


def _beat(facts: JobFacts, owner: Owner) -> Reason:
    if owner.beat_ms is None:
        return Reason("lost", f"its worker's beats have stopped{_requeued(facts)}")
    beat = f"its worker's last beat was {_ago(facts, owner.beat_ms)}"
    if facts.now_ms - owner.beat_ms > LATE_BEAT_MS:
        return Reason("silent", f"{beat}{_requeued(facts)}")
    return Reason("running", beat)


def _requeued(facts: JobFacts) -> str:
    """Return when a stall check queues the job again, if no sign of life comes."""
    if not facts.checkers:
        return ": stall checks queue it again, which workers make, and none lives"
    checks = facts.check_ms + (0 if facts.is_marked else facts.stall_interval)
    return f": it is queued again in about {show_duration(max(0, checks))}, unless a sign of life comes"


def _delayed(_job_id: str, queue_name: str, facts: JobFacts) -> Iterator[Reason]:
    left_ms = (facts.due_ms or 0) - facts.now_ms
    if left_ms > SAFE_INTEGER:
        text = "infinite" if left_ms == float("inf") else f"{facts.due_ms:g} ms"
        yield Reason("due", f"it is never due: its due time is {text}")
    elif left_ms > 0:
        yield Reason("due", f"it is due in {show_duration(round(left_ms))}")
    elif left_ms > -_OVERDUE_MS:
        yield Reason("due", "it is due just now")
    else:
        late_ms = round(min(-left_ms, facts.now_ms))  # of any time before the epoch, too
        text = f"it has been due for {show_duration(late_ms)}, and nobody raises it"
        yield Reason("overdue", f"{text}: a beeq worker does, or a Node queue with activateDelayedJobs")
    yield from _attempts(facts)
    yield from _pause(queue_name, facts)
    yield from _no_worker(queue_name, facts)


def _failed(job_id: str, _queue_name: str, facts: JobFacts) -> Iterator[Reason]:
    error = facts.error or next(iter(facts.errors), "") or "the error was not kept"
    count = len(facts.errors)
    attempts = f" after {count} failed attempts" if count > 1 else ""
    yield Reason("failed", f"it failed for good{attempts}: {_cut(error)}")
    if facts.options is not None:
        yield Reason(
            "failed", f"it stays as it is until somebody retries it (beeq retry {job_id}) or removes it"
        )


def _succeeded(_job_id: str, _queue_name: str, facts: JobFacts) -> Iterator[Reason]:
    rest = "" if facts.options is not None else "; its record was dropped, and its result is kept for a while"
    yield Reason("succeeded", f"it has succeeded{rest}")


def _cancelled(_job_id: str, _queue_name: str, _facts: JobFacts) -> Iterator[Reason]:
    yield Reason("cancelled", "it was cancelled")


def _workers(count: int) -> str:
    return "the one worker" if count == 1 else f"the {count} workers"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _since(facts: JobFacts, at_ms: int) -> str:
    return show_duration(max(0, facts.now_ms - at_ms))


def _ago(facts: JobFacts, at_ms: int) -> str:
    return f"{_since(facts, at_ms)} ago"


def _cut(error: str) -> str:
    line = error.partition("\n")[0].strip()
    return line if len(line) <= _LONGEST_ERROR else line[: _LONGEST_ERROR - 1] + "…"
