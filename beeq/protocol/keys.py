"""The names of everything a queue keeps in Redis. Names only: nothing here talks to Redis.

Who writes each key, and how long it lives, is in protocol/README.md, "Keys".

bee-queue's keys are ``<prefix>:<queue>:<suffix>``:

============== ========== ==================================================================
suffix         type       content
============== ========== ==================================================================
id             string     counter of automatic ids
jobs           hash       id → job record (JSON)
waiting        list       ids; producers push left, workers pop right
active         list       ids of running jobs; the newest claim is at the left
succeeded      set        ids
failed         set        ids
delayed        sorted set id → due time, ms since the epoch
stalling       set        ids that were active at the last stall check and gave no sign of life since
stallBlock     string     "1" with a TTL: one stall check for the whole fleet in that time; the token of
                          beeq's check while it goes on
events         channel    what happened to jobs, as JSON
earlierDelayed channel    due time of a new head of ``delayed``, ms as text
============== ========== ==================================================================

beeq's own keys all begin with ``<prefix>:<queue>:beeq:``, which no bee-queue suffix does:

================ ========== ================================================================
beeq:claims      hash       id → ``<token>.<place>:<deliveries>``: its owner (the call that took it, and
the job's place in it), and how often it was handed out
beeq:ahead       sorted set ``<claim> <id>`` of a job that was claimed ahead and has not begun → until when it
                            is to begin, ms since the epoch; then others may give it back
beeq:results     hash       id → ``<created>:<s|f><text>``: a result, or an error's message, as long as
                            the job is there
beeq:evenResults hash       id → ``<due>:<created>:<s|f|c><text>``: the result of a job whose record was
                            dropped, its error's message, or that it was cancelled, until due, ms since
                            the epoch; has a TTL
beeq:oddResults  hash       the same: the two keys take turns, each for one ``result_ttl``
beeq:cancelled   sorted set claim → when its job was cancelled, ms since the epoch; has a TTL;
                            also a channel, which carries the claim
beeq:outbox      stream     ids of jobs that have changed, for the mirror; only in mirrored queues
beeq:mirror      string     the mirror's last failure; has a TTL; in the first mirrored queue only
beeq:scan        string     process that compares queue and mirror now; has a TTL
beeq:workers     sorted set worker process → its last heartbeat, ms since the epoch; has a TTL; also a
channel, on which a new process is announced
beeq:requeued    set        ids that the current stall check has queued again; has a TTL
beeq:swept       hash       how far the sweep through claims has come; has a TTL
beeq:written     string     empty: a write that replicas confirm (``wait_replicas``); has a TTL
beeq:tried       string     there while one script call tries the user's rights, and gone at its end
beeq:attempts    hash       id → the job's failed attempts, newest first, one a line; has a TTL
beeq:paused      string     exists while the queue is paused: since when, who paused it, why, as JSON; has
a TTL if it ends by itself; also a channel
beeq:hidden      list       ids that wait, as in ``waiting`` and before these, while they are hidden from Node
beeq:succeededAt sorted set id → when a worker that is to drop ended jobs in time has recorded the
                            success, ms since the epoch; the fraction is a mark of the record; has a TTL
beeq:failedAt    sorted set the same of jobs that have failed
beeq:seenSuccess sorted set id → when a job that others have finished was first seen succeeded; the same
                            otherwise
beeq:seenFailure sorted set the same of jobs that have failed
beeq:retention   string     what the workers keep that have looked last for jobs to drop; has a TTL
beeq:minutes     hash       minute → what was counted in it, see protocol/history.py; "last" → the newest
                            sample; has a TTL
beeq:hours       hash       hour → the same of an hour; has a TTL
================ ========== ================================================================

Each worker process has one more, ``beeq:running:<worker>``: a hash, what it is and which jobs run there, see
protocol/running.py; has a TTL.

All queues of a prefix share one key, the registry ``<prefix>:beeq:queues``: a sorted set, name of a queue →
when beeq last used it, ms since the epoch. In a cluster each hash tag has its own; those whose tag is in the
queues' names are ``<prefix>:beeq:queues:{tag}``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: The lists and sets that a job is in, one at a time.
JobSetName = Literal["waiting", "active", "delayed", "succeeded", "failed"]
#: Those of jobs that have ended.
EndedSetName = Literal["succeeded", "failed"]

#: bee-queue's own keys, in the order in which ``destroy`` names them.
BEE_SUFFIXES = (
    "id",
    "jobs",
    "stallBlock",
    "stalling",
    "waiting",
    "active",
    "succeeded",
    "failed",
    "delayed",
)

#: The keys that beeq adds.
SIDE_SUFFIXES = (
    "beeq:claims",
    "beeq:ahead",
    "beeq:results",
    "beeq:evenResults",
    "beeq:oddResults",
    "beeq:cancelled",
    "beeq:outbox",
    "beeq:scan",
    "beeq:mirror",
    "beeq:workers",
    "beeq:requeued",
    "beeq:swept",
    "beeq:tried",
    "beeq:written",
    "beeq:attempts",
    "beeq:paused",
    "beeq:hidden",
    "beeq:succeededAt",
    "beeq:failedAt",
    "beeq:seenSuccess",
    "beeq:seenFailure",
    "beeq:retention",
    "beeq:minutes",
    "beeq:hours",
)

#: Keys of earlier versions of beeq, no longer read; ``destroy`` deletes them too.
OLD_SUFFIXES = ("beeq:expiries",)


class Key:
    """An attribute of ``Keys``: the full name of one suffix."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix

    def __get__(self, keys: Keys, _owner: type) -> str:
        """Return the name in that queue."""
        return keys.to_key(self._suffix)


class RegistryKey(Key):
    """The key that queues share: in a cluster those of one hash tag, else those of one prefix."""

    def __get__(self, keys: Keys, _owner: type) -> str:
        """Return its name."""
        return registry_key(keys.prefix, keys.queue_name if keys.is_in_cluster else "")


class WorkerKey(Key):
    """A key of one worker process."""

    def __get__(self, keys: Keys, _owner: type) -> str:
        """Return its name."""
        return f"{keys.to_key(self._suffix)}:{keys.worker}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The key names of one queue. An empty prefix means ``bq``, as in bee-queue.

    ``worker`` is the process of the key ``running``.
    """

    prefix: str
    queue_name: str
    is_in_cluster: bool = False
    worker: str = ""

    id = Key("id")
    jobs = Key("jobs")
    waiting = Key("waiting")
    active = Key("active")
    succeeded = Key("succeeded")
    failed = Key("failed")
    delayed = Key("delayed")
    stalling = Key("stalling")
    stall_block = Key("stallBlock")
    events = Key("events")
    earlier_delayed = Key("earlierDelayed")
    claims = Key("beeq:claims")
    ahead = Key("beeq:ahead")
    results = Key("beeq:results")
    even_results = Key("beeq:evenResults")
    odd_results = Key("beeq:oddResults")
    cancelled = Key("beeq:cancelled")
    outbox = Key("beeq:outbox")
    scan_lease = Key("beeq:scan")
    mirror_failure = Key("beeq:mirror")
    workers = Key("beeq:workers")
    requeued = Key("beeq:requeued")
    swept = Key("beeq:swept")
    tried = Key("beeq:tried")
    written = Key("beeq:written")
    attempts = Key("beeq:attempts")
    paused = Key("beeq:paused")
    hidden = Key("beeq:hidden")
    queues = RegistryKey("beeq:queues")
    succeeded_at = Key("beeq:succeededAt")
    failed_at = Key("beeq:failedAt")
    seen_success = Key("beeq:seenSuccess")
    seen_failure = Key("beeq:seenFailure")
    retention = Key("beeq:retention")
    minutes = Key("beeq:minutes")
    hours = Key("beeq:hours")
    running = WorkerKey("beeq:running")

    def to_key(self, suffix: str) -> str:
        """Return the full name of ``suffix``; nothing is escaped."""
        return f"{self.prefix or 'bq'}:{self.queue_name}:{suffix}"

    def every(self) -> list[str]:
        """Return each key of the queue, bee-queue's, beeq's, and of earlier versions; none of one worker."""
        return [self.to_key(suffix) for suffix in (*BEE_SUFFIXES, *SIDE_SUFFIXES, *OLD_SUFFIXES)]


def hash_tag_of(key: str) -> str:
    """Return the part of a key that decides its slot in a Redis Cluster; "" if that is all of it."""
    tag, closing, _ = key.partition("{")[2].partition("}")
    return tag if closing else ""


def registry_key(prefix: str, queue_name: str = "") -> str:
    """Return the key of the registry that has this queue in a cluster; without a name, the prefix's.

    It lies in the queue's slot, if that is decided by a hash tag in the prefix or in the name.
    """
    key = f"{prefix or 'bq'}:beeq:queues"
    tag = hash_tag_of(f"{prefix or 'bq'}:{queue_name}:")
    return key if not tag or hash_tag_of(key) == tag else f"{key}:{{{tag}}}"
