"""The optional receivers of a queue's counts and spans: usually None, which costs nothing."""

from dataclasses import dataclass, field

from beeq.telemetry.tally import QueueTally
from beeq.telemetry.tracing import Tracing
from beeq.telemetry.work_counts import WorkCounts


@dataclass(slots=True)
class Telemetry:
    """One queue's receivers; they stay when it is reopened. May be set at any time."""

    #: Counts for metrics; None: no metrics were asked for.
    tally: QueueTally | None = None
    #: Makes spans; None: the queue's setting ``tracing`` is off.
    tracing: Tracing | None = None
    #: Counts the work done here for the queue's history; always there.
    work: WorkCounts = field(default_factory=WorkCounts)
