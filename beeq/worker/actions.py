"""The vocabulary of scheduler and pump: states, actions with their fields, and their bounds.

Which action is due is decided in ``scheduler.py``; ``pump.py`` carries it out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from beeq.protocol.outcome import Outcome
from beeq.worker.claims import ClaimedJob, FetchedJob

#: Calls in flight at once: Redis works on one while this process works on the other's jobs.
MAX_CALLS = 2
#: Jobs asked for, and outcomes sent, in one call …
MAX_BATCH = 500
#: … with not much more than this many bytes of outcomes.
MAX_BATCH_BYTES = 1_000_000
#: For each outcome Redis searches ``active``, which is as long as many jobs run. A call makes so many steps
#: at most, some milliseconds' worth …
_MAX_STEPS = 500_000
#: … but always carries so many outcomes.
_FEWEST_OUTCOMES = 25


# States.


class Phase(Enum):
    """What the worker is for now."""

    TAKING = "takes jobs"
    DRAINING = "takes none, and records what still ends"
    OVER = "has ended"


TAKING, DRAINING, OVER = (
    Phase  # constants: looking a member up in its class takes Python 3.11 as long as a call
)


class Link(Enum):
    """Whether calls can be made."""

    READY = "calls can be made"
    BROKEN = "a call failed, or the connection is gone"
    RECOVERING = "Recover is being carried out, or GiveBack of what lost calls have claimed"


READY, BROKEN, RECOVERING = Link


class FetchState(Enum):
    """What the blocking fetch does."""

    NO_FETCH = "none is under way"
    WAITING = "it may bring a job any moment, and holds a place for it"
    RESTING = "it failed, and is tried again later"


NO_FETCH, WAITING, RESTING = FetchState


class Failure(Enum):
    """How a call failed."""

    SCRIPT_MISSING = "not executed: Redis does not know the script"
    REFUSED = "not executed: Redis answered with an error"
    REPLY_LOST = "nobody knows whether it was executed"


# What goes between them.


@dataclass(slots=True, eq=False)
class PendingOutcome:
    """An outcome on its way to Redis."""

    raw_id: bytes
    claim: bytes
    outcome: Outcome


# Actions.


@dataclass(slots=True)
class ExchangeCall:
    """Send one call of ``lua/exchange.lua``; end it with ``replied`` or ``failed``.

    Attributes:
        token: what the jobs it hands out are claimed with.
        free: how many jobs it asks for.
        fetched: a fetched job that it claims first.
        outcomes: what it records.
        requested: places that this call may fill beyond those its outcomes free.
    """

    token: bytes
    free: int
    fetched: FetchedJob | None
    outcomes: list[PendingOutcome]
    requested: int


@dataclass(slots=True)
class Start:
    """Start these jobs; each leads to one ``outcome_ready`` or ``give_back``."""

    jobs: list[ClaimedJob]


@dataclass(slots=True)
class StartEarly:
    """Start a job whose claim is not granted yet: the call that claims it has just been sent."""

    job: ClaimedJob


@dataclass(slots=True)
class ClaimKnown:
    """End the waits for the claim of the job that was started early: Redis has granted it, or not."""


@dataclass(slots=True)
class StopHandler:
    """Stop the handler of a job that was started early: its claim was not granted."""

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
    """End the blocking fetch without losing what it may bring; end it with ``fetch_stopped``."""


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
        unclaimed: id of a fetched job that nobody has claimed, or empty.
    """

    claims: list[tuple[bytes, bytes]]
    strays: list[tuple[bytes, bytes]]
    unclaimed: bytes


@dataclass(slots=True)
class Idle:
    """Nothing runs here, and the queue was found empty."""


@dataclass(slots=True)
class DecideSoon:
    """Call ``decide`` at the end of this turn of the event loop."""


@dataclass(slots=True)
class Done:
    """The end: DRAINING, and nothing is held."""


Action = (
    ExchangeCall
    | Start
    | StartEarly
    | ClaimKnown
    | StopHandler
    | Recorded
    | Lost
    | Fetch
    | StopFetch
    | Recover
    | GiveBack
    | Idle
    | DecideSoon
    | Done
)
Actions = Sequence[Action]
#: Those that take time; ``Done`` comes after them.
AwaitedAction = Recover | GiveBack | StopFetch | Done
AWAITED_ACTIONS = (Recover, GiveBack, StopFetch, Done)


def batch_size(outcomes: Sequence[PendingOutcome], running: int) -> int:
    """Return how many outcomes one call may carry while ``running`` jobs run; one large record goes alone."""
    if len(outcomes) <= 1:
        return len(outcomes)
    count = size_bytes = 0
    most = max(_FEWEST_OUTCOMES, min(MAX_BATCH, _MAX_STEPS // max(1, running)))
    for each in outcomes[:most]:
        size_bytes += len(each.outcome.record)
        if count and size_bytes > MAX_BATCH_BYTES:
            break
        count += 1
    return count
