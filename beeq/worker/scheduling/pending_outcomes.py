"""Outcomes on their way to Redis: how many one call carries, and how refused ones are handled.

A call that fails is sent again with half its outcomes, down to one; each answered call may carry twice as
many again. An outcome whose call has failed although it carried nothing else is lonely: it is sent alone, now
and then, and delays no other. If Redis refuses its content (it is longer than the server takes), or hangs up
on it repeatedly, the job fails instead, with a short outcome.

Decisions only, for ``scheduler.py``.
"""

from collections import deque
from collections.abc import Sequence
from itertools import accumulate

from beeq.errors import RedisError, RedisSilent
from beeq.protocol.outcome import refused_outcome
from beeq.worker.scheduling.actions import MAX_BATCH, MAX_BATCH_BYTES, Failure, PendingOutcome

#: Facts of ``lua/exchange.lua``: the outcome was recorded; its content was there already.
_RECORDED, _THERE = 1, 2
#: If Redis hangs up so often on an outcome that is sent alone, its content is the cause.
MAX_HANGUPS = 5
#: A server takes the content of an outcome of at most so many bytes.
_SHORT_BYTES = 65_536


class PendingOutcomes:
    """One worker's outcomes, in the order in which they are sent."""

    def __init__(self) -> None:
        self._lonely: deque[PendingOutcome] = deque()
        #: Those that share calls, and that no call carries now.
        self.waiting: list[PendingOutcome] = []
        #: How many of those that go alone may be sent now.
        self.lonely_due = 0
        self._is_later_due = False  # ``retry_lonely`` is about to be called
        #: Claims of outcomes that Redis may have recorded, see ``allow_asking``.
        self.unanswered: set[bytes] = set()
        #: How much one call may carry, and ask for, at most: less after a failure.
        self.limit = MAX_BATCH

    def has(self, claim: bytes) -> bool:
        """Return whether the outcome of the job with this claim is among them."""
        return any(each.claim == claim for each in (*self.waiting, *self._lonely))

    def take(self, *, alone: bool) -> list[PendingOutcome]:
        """Return the next call's outcomes: so many, and not much more than ``MAX_BATCH_BYTES`` of them.

        A lonely one is all that its call carries; without ``alone`` the call has other work, too.
        """
        if alone and self.lonely_due:
            self.lonely_due -= 1
            return [self._lonely.popleft()]
        waiting = self.waiting
        if len(waiting) <= 1:
            self.waiting = []
            return waiting
        count = self.limit
        outcomes = [each.outcome for each in waiting[:count]]
        # As in ``size_bytes``, but for the ids; a property would cost each job a call.
        sizes = [len(each.record) + len(each.message) + len(each.keep) for each in outcomes]
        if sum(sizes) > MAX_BATCH_BYTES:
            count = max(1, sum(size <= MAX_BATCH_BYTES for size in accumulate(sizes)))
        self.waiting = waiting[count:]
        return waiting[:count]

    def allow_asking(self, outcomes: list[PendingOutcome]) -> bool:
        """Return whether a call that carries these may ask for jobs.

        Redis may have recorded an outcome whose reply was lost, and its job may wait again. Were that claimed
        here before the outcome is sent again, the outcome would be taken for a lost one.
        """
        if outcomes and outcomes[0].is_lonely:
            return False  # it may be refused again, and jobs must not be refused with it
        return not self.unanswered or self.unanswered <= {each.claim for each in outcomes}

    def put_back(self, outcomes: list[PendingOutcome]) -> None:
        """Send these first: their call has not looked at them."""
        self.waiting[:0] = outcomes

    def answered(
        self, sent: list[PendingOutcome], facts: Sequence[int], unclaimed: bytes
    ) -> tuple[list[PendingOutcome], list[PendingOutcome]]:
        """Return which outcomes of an executed call are recorded, and which are lost; others are sent again.

        The next call may carry twice as much.

        Args:
            sent: what the call carried.
            facts: of its reply, see ``lua/exchange.lua``; fewer if it did not look at all of them.
            unclaimed: claim of a job that was started early, and that no call has claimed yet, because Redis
                refused the one that was to do so. The job's outcome is sent again; it is not lost.
        """
        if self.limit < MAX_BATCH:
            self.limit = min(self.limit * 2, MAX_BATCH)
        if self.unanswered:
            self.unanswered -= {each.claim for each in sent[: len(facts)]}
        if facts.count(_RECORDED) == len(sent):
            return sent, []
        recorded: list[PendingOutcome] = []
        lost: list[PendingOutcome] = []
        again = sent[len(facts) :]
        for each, fact in zip(sent, facts, strict=False):
            if not fact and each.claim == unclaimed:
                again.append(each)
            elif each.is_unanswered if fact == _THERE else fact:
                recorded.append(each)  # otherwise another worker has written the same
            else:
                lost.append(each)
        self.put_back(again)
        return recorded, lost

    def failed(self, outcomes: list[PendingOutcome], asked: int, failure: Failure, error: RedisError) -> bool:
        """Take the failure of a call with these outcomes that asked for ``asked`` jobs.

        Returns whether the next call may be made at once: it carries or asks for less, or something else.
        """
        if failure is Failure.SCRIPT_MISSING:
            self.put_back(outcomes)
            return True
        for each in outcomes:
            each.is_unanswered = True  # a refused call may have recorded outcomes, and then asked in vain
            if failure is Failure.REPLY_LOST:
                self.unanswered.add(each.claim)
        if len(outcomes) == 1:
            is_other = self._failed_alone(outcomes[0], failure, error)
        else:
            self.put_back(outcomes)
            is_other = False
        size = min(self.limit, max(len(outcomes), asked))
        if size <= 1:
            return is_other
        self.limit = 1 if failure is Failure.CONTENT_REFUSED else size // 2
        return True

    def _failed_alone(self, pending: PendingOutcome, failure: Failure, error: RedisError) -> bool:
        if failure is Failure.REPLY_LOST and pending.size_bytes <= _SHORT_BYTES:
            self.put_back([pending])
            return False
        is_silent = isinstance(error, RedisSilent)  # or slow: the content is not the cause
        pending.hangups += failure is Failure.REPLY_LOST and not is_silent
        if failure is Failure.CONTENT_REFUSED or pending.hangups >= MAX_HANGUPS:
            pending.outcome = refused_outcome(pending.outcome, error, with_record=not pending.is_refusal)
            pending.is_refusal, pending.hangups, pending.is_lonely = True, 0, False
            self.put_back([pending])
            return True
        pending.is_lonely = True
        if pending.outcome.status != "retrying":  # else the job may wait, and be claimed here again
            self.unanswered.discard(pending.claim)  # or no jobs would be asked for while it is refused
        self._lonely.append(pending)
        return bool(self.waiting)

    def wants_later(self) -> bool:
        """Return whether ``retry_lonely`` is to be called later; asked once after each failure."""
        wants = bool(self._lonely) and not self._is_later_due
        self._is_later_due = self._is_later_due or wants
        return wants

    def retry_lonely(self) -> None:
        """Send those that are lonely again, one a call."""
        self._is_later_due = False
        self.lonely_due = len(self._lonely)
