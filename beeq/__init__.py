"""bee-queue for Python: a fast job queue on Redis that Node and Python share."""

from beeq.client.reader import Health, Stats
from beeq.errors import (
    BeeqError,
    Discard,
    JobFailed,
    JobLost,
    JobStalled,
    JobTimedOut,
    JobUnreadable,
    QueueClosed,
    RedisError,
    RedisRefused,
    RedisUnavailable,
    Retry,
    StatusNotUpdated,
)
from beeq.job import Job
from beeq.queue import Queue
from beeq.settings import Settings
from beeq.workers import run_workers

__all__ = [
    "BeeqError",
    "Discard",
    "Health",
    "Job",
    "JobFailed",
    "JobLost",
    "JobStalled",
    "JobTimedOut",
    "JobUnreadable",
    "Queue",
    "QueueClosed",
    "RedisError",
    "RedisRefused",
    "RedisUnavailable",
    "Retry",
    "Settings",
    "Stats",
    "StatusNotUpdated",
    "run_workers",
]

__version__ = "0.1.0"
