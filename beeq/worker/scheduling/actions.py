"""The vocabulary of scheduler and pump: actions with their fields, and their bounds.

``scheduler.py`` decides which action is due; ``pump.py`` carries it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from beeq.protocol.outcome import Outcome
from beeq.worker.scheduling.claims import ClaimedJob, FetchedJob

#: Flags of a reply: waiting had fewer jobs than there were places, or none; jobs are claimed ahead somewhere.
IS_EMPTY, ARE_AHEAD = 1, 2
#: Calls in flight at once: Redis works on one while this process works on the other's jobs.
MAX_CALLS = 2
#: Jobs asked for, and outcomes sent, in one call …
MAX_BATCH = 500
#: … with not much more than this many bytes of records, in either direction.
MAX_BATCH_BYTES = 1_000_000


class Failure(Enum):
    """How a call failed."""

    SCRIPT_MISSING = "not executed: Redis does not know the script"
    REFUSED = "Redis answered with an error: outcomes may be recorded, no job is claimed"
    CONTENT_REFUSED = "not executed: something in the call is longer than Redis takes"
    REPLY_LOST = "nobody knows whether it was executed"


# Data passed between them.


@dataclass(slots=True, eq=False)
class PendingOutcome:
    """An outcome on its way to Redis.

    Attributes:
        is_unanswered: a call with it was sent, and it is unknown whether Redis has recorded it.
        is_lonely: it is sent alone: Redis has refused it alone, or it is large and its reply was lost.
        hangups: how often the connection ended during such a call.
        is_refusal: it replaces one whose content Redis has refused.
    """

    raw_id: bytes
    claim: bytes
    outcome: Outcome
    is_unanswered: bool = False
    is_lonely: bool = False
    hangups: int = 0
    is_refusal: bool = False

    @property
    def size_bytes(self) -> int:
        """About how many bytes it adds to a call."""
        outcome = self.outcome
        return len(self.raw_id) + len(outcome.record) + len(outcome.message) + len(outcome.keep)


# Actions.


@dataclass(slots=True)
class ExchangeCall:
    """Send one call of ``lua/exchange.lua``; end it with ``replied`` or ``failed``.

    Attributes:
        token: the claims of its jobs begin with it.
        free: how many jobs it asks for that begin at once.
        fetched: a fetched job that it claims first.
        outcomes: what it records.
        ahead: how many jobs it asks for beyond the free places.
        asked: how many jobs it may bring, until it has ended.
        requested: ``asked`` minus the outcomes that it carries, at least 0.
        begin_by_s: when the last of these is to begin, by the scheduler's clock.
        notes_ahead: whether they are noted in Redis, so that others may take back jobs that have not begun.
    """

    token: bytes
    free: int
    fetched: FetchedJob | None
    outcomes: list[PendingOutcome]
    ahead: int = 0
    asked: int = 0
    requested: int = 0
    begin_by_s: float = 0.0
    notes_ahead: bool = False


class ExchangeReply(NamedTuple):
    """The parts of the reply to a call, see ``lua/exchange.lua``."""

    facts: Sequence[int]
    flags: int
    jobs: Sequence[Any]
    is_granted: int
    ahead: int


@dataclass(slots=True)
class Start:
    """Start these jobs; each leads to one ``outcome_ready`` or ``give_back``."""

    jobs: list[ClaimedJob]


@dataclass(slots=True)
class NoteBegins:
    """Note in Redis that these jobs, which were claimed ahead, begin now; their Start comes next.

    From then on no other worker takes them back as overdue.
    """

    jobs: list[ClaimedJob]


@dataclass(slots=True)
class CheckAhead:
    """Call ``check_ahead`` when the scheduler's clock shows this."""

    at_s: float


@dataclass(slots=True)
class StartEarly:
    """Start a job whose claim is not granted yet: the call that claims it has just been sent."""

    job: ClaimedJob


@dataclass(slots=True)
class ClaimKnown:
    """End the waits for the claim of the job that was started early: Redis has granted it, or not."""


@dataclass(slots=True)
class StopHandler:
    """Stop the handler that runs by this claim, if one does: the claim was not granted, or is lost."""

    claim: bytes


@dataclass(slots=True)
class Recorded:
    """Call the listeners: Redis has recorded these outcomes."""

    outcomes: list[Outcome]


@dataclass(slots=True)
class Lost:
    """Report that these jobs had another owner by then: Redis has dropped the outcomes."""

    outcomes: list[Outcome]


@dataclass(slots=True)
class Fetch:
    """Start a blocking fetch; it ends with ``fetched`` or ``fetch_ended``."""


@dataclass(slots=True)
class StopFetch:
    """End the blocking fetch without losing a job that it may bring; end this with ``fetch_stopped``."""


@dataclass(slots=True)
class Recover:
    """Make calls possible again; end it with ``recovered`` or ``recovery_failed``.

    Attributes:
        needs_rest: wait first, longer after each failure.
        needs_script: load the script.
        tokens: of calls whose reply was lost: find what they have claimed.
        record_of: id of a job whose record is wanted as it is now, or empty.
    """

    needs_rest: bool
    needs_script: bool
    tokens: tuple[bytes, ...]
    record_of: bytes


@dataclass(slots=True)
class GiveBack:
    """Give jobs back to the front of the queue; end it with ``given_back`` or ``give_back_failed``.

    Attributes:
        claims: id and claim of each; the first runs first. They hold places here.
        strays: id and claim of jobs that lost calls have claimed, and that run nowhere.
        unclaimed: id of a fetched job that no call has claimed, or empty.
    """

    claims: list[tuple[bytes, bytes]]
    strays: list[tuple[bytes, bytes]]
    unclaimed: bytes


@dataclass(slots=True)
class RetryLater:
    """After a while, call ``retry_lonely``: Redis has refused an outcome that was sent alone."""


@dataclass(slots=True)
class Idle:
    """Nothing runs here, and the queue was found empty."""


@dataclass(slots=True)
class DecideSoon:
    """Call ``turn_ended`` at the end of this turn of the event loop."""


@dataclass(slots=True)
class Done:
    """The end: DRAINING, and nothing is held."""


Action = (
    ExchangeCall
    | Start
    | NoteBegins
    | CheckAhead
    | StartEarly
    | ClaimKnown
    | StopHandler
    | Recorded
    | Lost
    | Fetch
    | StopFetch
    | Recover
    | GiveBack
    | RetryLater
    | Idle
    | DecideSoon
    | Done
)
Actions = Sequence[Action]
#: Those that take time; ``Done`` comes after them.
AwaitedAction = Recover | GiveBack | StopFetch | Done
AWAITED_ACTIONS = (Recover, GiveBack, StopFetch, Done)
