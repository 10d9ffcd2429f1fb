"""bee-queue for Python: a fast job queue on Redis that Node and Python share."""

from beeq.client.reader import Health, Stats
from beeq.errors import (
    BeeqError,
    Discard,
    DutyEnded,
    DutySilent,
    JobFailed,
    JobLost,
    JobStalled,
    JobTimedOut,
    JobUnreadable,
    NotReplicated,
    NoWorkerLives,
    Postpone,
    QueueClosed,
    RedisError,
    RedisRefused,
    RedisUnavailable,
    Retry,
    StatusNotUpdated,
    WorkerStuck,
)
from beeq.job import Job
from beeq.operations.diagnosis.findings import Finding
from beeq.operations.explanation.reasons import Explanation, Reason
from beeq.operations.history.points import History, HistoryPoint
from beeq.operations.inspection import JobDetails
from beeq.operations.job_filter import OneOf
from beeq.operations.live_workers import ActiveJob, Activity, LiveWorker, OtherJobs
from beeq.operations.many import BulkCounts, FoundJob, JobPage
from beeq.operations.pauses import QueuePaused
from beeq.operations.watching import JobNews
from beeq.process import VERSION
from beeq.protocol.attempts import FailedAttempt
from beeq.protocol.pauses import Pause
from beeq.queue import Queue
from beeq.settings import Keep, Settings
from beeq.supervision.duty import DutyHealth
from beeq.worker.health import WorkerHealth
from beeq.workers import run_workers

__all__ = [
    "ActiveJob",
    "Activity",
    "BeeqError",
    "BulkCounts",
    "Discard",
    "DutyEnded",
    "DutyHealth",
    "DutySilent",
    "Explanation",
    "FailedAttempt",
    "Finding",
    "FoundJob",
    "Health",
    "History",
    "HistoryPoint",
    "Job",
    "JobDetails",
    "JobFailed",
    "JobLost",
    "JobNews",
    "JobPage",
    "JobStalled",
    "JobTimedOut",
    "JobUnreadable",
    "Keep",
    "LiveWorker",
    "NoWorkerLives",
    "NotReplicated",
    "OneOf",
    "OtherJobs",
    "Pause",
    "Postpone",
    "Queue",
    "QueueClosed",
    "QueuePaused",
    "Reason",
    "RedisError",
    "RedisRefused",
    "RedisUnavailable",
    "Retry",
    "Settings",
    "Stats",
    "StatusNotUpdated",
    "WorkerHealth",
    "WorkerStuck",
    "run_workers",
]

__version__ = VERSION
