"""Where a queue's parts look whether anybody wants to know: None is the usual answer, and costs nothing."""

from dataclasses import dataclass, field

from beeq.telemetry.tally import QueueTally
from beeq.telemetry.tracing import Tracing
from beeq.telemetry.work_counts import WorkCounts


@dataclass(slots=True)
class Telemetry:
    """One queue's, also over its reopening. May be set at any time."""

    #: Counts what happens here; None: nobody asked for metrics.
    tally: QueueTally | None = None
    #: Makes spans; None: the queue's setting ``tracing`` is off.
    tracing: Tracing | None = None
    #: Counts the work done here for the queue's history; always there.
    work: WorkCounts = field(default_factory=WorkCounts)
