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
stalling       set        ids that were active at the last stall check and have not beaten since
stallBlock     string     "1" with a TTL: one stall check for the whole fleet in that time
events         channel    what happened to jobs, as JSON
earlierDelayed channel    due time of a new head of ``delayed``, ms as text
============== ========== ==================================================================

beeq's own keys all begin with ``<prefix>:<queue>:beeq:``, which no bee-queue suffix does:

============== ========== ==================================================================
beeq:claims    hash       id → ``<token>.<place>:<deliveries>``: whose it is (the call that took it, and
                          the job's place in it), and how often it was handed out
beeq:results   hash       id → ``<created>:<s|f|c><text>``: a result, an error's message, or that it
                          was cancelled
beeq:expiries  sorted set id → when its entry in beeq:results may go, ms since the epoch
beeq:cancelled sorted set claim → when its job was cancelled, ms since the epoch; has a TTL;
                          also a channel, which carries the claim
beeq:outbox    stream     ids of jobs that have changed, for the mirror; only in mirrored queues
beeq:scan      string     process that compares queue and mirror now; has a TTL
beeq:workers   sorted set worker process → when it last beat, ms since the epoch; has a TTL
============== ========== ==================================================================
"""

from dataclasses import dataclass

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
    "beeq:results",
    "beeq:expiries",
    "beeq:cancelled",
    "beeq:outbox",
    "beeq:scan",
    "beeq:workers",
)


@dataclass(frozen=True, slots=True)
class Keys:
    """The key names of one queue. An empty prefix means ``bq``, as in bee-queue."""

    prefix: str
    queue_name: str

    def to_key(self, suffix: str) -> str:
        """Return the full name of ``suffix``; nothing is escaped."""
        return f"{self.prefix or 'bq'}:{self.queue_name}:{suffix}"

    def every(self) -> list[str]:
        """Return each key the queue may own, bee-queue's and beeq's."""
        return [self.to_key(suffix) for suffix in (*BEE_SUFFIXES, *SIDE_SUFFIXES)]

    @property
    def id(self) -> str:
        """Counter of automatic ids."""
        return self.to_key("id")

    @property
    def jobs(self) -> str:
        """Hash of records."""
        return self.to_key("jobs")

    @property
    def waiting(self) -> str:
        """List of ids to run."""
        return self.to_key("waiting")

    @property
    def active(self) -> str:
        """List of ids that run."""
        return self.to_key("active")

    @property
    def succeeded(self) -> str:
        """Set of ids."""
        return self.to_key("succeeded")

    @property
    def failed(self) -> str:
        """Set of ids."""
        return self.to_key("failed")

    @property
    def delayed(self) -> str:
        """Sorted set of ids by due time."""
        return self.to_key("delayed")

    @property
    def stalling(self) -> str:
        """Set of ids that have to give a sign of life."""
        return self.to_key("stalling")

    @property
    def stall_block(self) -> str:
        """Gate of the stall check."""
        return self.to_key("stallBlock")

    @property
    def events(self) -> str:
        """Channel of job events."""
        return self.to_key("events")

    @property
    def earlier_delayed(self) -> str:
        """Channel of new earliest due times."""
        return self.to_key("earlierDelayed")

    @property
    def claims(self) -> str:
        """Hash of who runs what, and for the how many-th time."""
        return self.to_key("beeq:claims")

    @property
    def results(self) -> str:
        """Hash of results and last errors."""
        return self.to_key("beeq:results")

    @property
    def expiries(self) -> str:
        """Sorted set of results that outlive their records for a while."""
        return self.to_key("beeq:expiries")

    @property
    def workers(self) -> str:
        """Sorted set of living worker processes."""
        return self.to_key("beeq:workers")

    @property
    def cancelled(self) -> str:
        """Sorted set of claims whose jobs were cancelled, and the channel that tells of each."""
        return self.to_key("beeq:cancelled")

    @property
    def outbox(self) -> str:
        """Stream of changed ids."""
        return self.to_key("beeq:outbox")

    @property
    def scan_lease(self) -> str:
        """Who compares the queue with its mirror."""
        return self.to_key("beeq:scan")
