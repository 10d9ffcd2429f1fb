"""The states of the scheduler: the worker's phase, the connection, the fetch."""

from enum import Enum


class Phase(Enum):
    """The worker's phase."""

    TAKING = "takes jobs"
    PAUSED = "takes none for now, and records what ends"
    DRAINING = "takes none, and records what still ends"
    OVER = "has ended"


TAKING, PAUSED, DRAINING, OVER = (
    Phase  # constants: looking a member up in its class takes Python 3.11 as long as a call
)


class Link(Enum):
    """Whether calls can be made."""

    READY = "calls can be made"
    BROKEN = "a call failed, or the connection is gone"
    RECOVERING = "Recover is being carried out, or GiveBack of what lost calls have claimed"


READY, BROKEN, RECOVERING = Link


class FetchState(Enum):
    """The state of the blocking fetch."""

    NO_FETCH = "none is under way"
    WAITING = "it may bring a job any moment, and holds a place for it"
    RESTING = "it failed, and is tried again later"


NO_FETCH, WAITING, RESTING = FetchState
