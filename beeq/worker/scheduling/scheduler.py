"""The scheduler: which call to Redis, which fetch, which handler comes next. It decides, and does nothing.

No asyncio, no Redis, no clock. ``pump.py`` tells it events and carries out the actions that it returns; these
are in ``actions.py``. The ordinary round: ``decide`` returns ExchangeCall, which asks for jobs; ``replied``
returns Start; when a handler has ended, ``outcome_ready`` returns the next ExchangeCall, which takes the
outcome along. At an empty queue, Fetch waits for a job.

=================== ========================================================================================
event               what the scheduler returns, and what changes
=================== ========================================================================================
any                 in the end, everything else that is due. READY: ExchangeCall while outcomes wait, a
                    fetched job is to be claimed, or places are free and the queue may have jobs; at an
                    empty queue Fetch; with nothing held, Idle. Not connected, or BROKEN: Recover. DRAINING:
                    StopFetch; GiveBack of a fetched job that was not started; Done once nothing is held.
                    OVER: nothing
outcome_ready       while other handlers run, DecideSoon: outcomes of one turn of the event loop share a call
replied             Recorded and Lost outcomes, Start of new jobs. Of a job that was started early also
                    ClaimKnown, and StopHandler if its claim was not granted
failed              what the call carried is held again, and sent in smaller calls (``pending_outcomes.py``);
                    BROKEN; DecideSoon. One that was refused alone: RetryLater, until retry_lonely
recovered           READY (recovery_failed: BROKEN); what unanswered calls claimed goes back unless it runs
fetched             ExchangeCall, StartEarly, DecideSoon if the record came along
fetch_rests         calls ask the queue until the fetch is tried again, after fetch_ended
give_back           the jobs are held, with their places, until given_back, or give_back_failed; lost ones go
claims_lost         StopHandler of each that Redis had granted; nobody beats for it any more
pause               PAUSED: as DRAINING, without Idle or Done. When the pause is over, TAKING
drain               DRAINING: nothing is claimed any more, outcomes are recorded
burst, look         no more fetches; the queue is asked again
=================== ========================================================================================

What holds after every event:

* Places: handlers running + outcomes not recorded + jobs asked for + one for a fetch ≤ concurrency. One
  exception: if Redis answers the call that claims a job started early with an error, it drops the outcome of
  that job, too; the outcome is held for another call, and takes one place more.
* At most two calls and one fetch are in flight; no fetch starts while a call is in flight that asks for jobs.
* The outcome of a job is sent after the call that claims it, over the same connection.
* Every claim ends once: recorded, given back, or lost. If the process dies, a stall check ends it.
* With something to do and a connection, something is in flight.
* One of Recover, GiveBack and StopFetch is under way at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any

from beeq.errors import RedisError
from beeq.protocol.outcome import Outcome
from beeq.worker.scheduling import actions, states
from beeq.worker.scheduling.actions import MAX_CALLS, Action, Actions, ExchangeCall, Recover
from beeq.worker.scheduling.claims import FIRST_DELIVERY, ClaimedJob, FetchedJob, HeldClaims, claim_of
from beeq.worker.scheduling.pending_outcomes import PendingOutcomes
from beeq.worker.scheduling.states import DRAINING, NO_FETCH, OVER, PAUSED, READY, TAKING, WAITING

_NOTHING: Actions = ()
_DECIDE_SOON = actions.DecideSoon()


class Scheduler:
    """Decides for one queue's worker.

    Args:
        concurrency: places: how many jobs may be held at once.
        token_prefix: a random text that the tokens of this worker's calls begin with.
        is_connected: whether there is a connection for calls now.
    """

    def __init__(self, *, concurrency: int, token_prefix: bytes, is_connected: Callable[[], bool]) -> None:
        self._concurrency = concurrency
        self._token_prefix = token_prefix
        self._is_connected = is_connected
        #: What one call asks for at most.
        self._share = min(-(-concurrency // MAX_CALLS), actions.MAX_BATCH)
        self.claimed = HeldClaims()
        self.places_taken = 0  #: By jobs that run, and by outcomes that are not recorded.
        self.running = 0  #: Of these, jobs that run.
        self.calls_in_flight = 0  #: Calls without a reply.
        self._requested = 0  # free places that calls in flight may fill
        self._calls_made = 0
        self._outcomes = PendingOutcomes()  # to be sent
        self._fetched: FetchedJob | None = None  # to be claimed
        self._giving_back: list[tuple[bytes, bytes]] = []  # id and claim of jobs to give back
        self._strays: list[tuple[bytes, bytes]] = []  # … of jobs that run nowhere, and hold no place
        self._unanswered_tokens: list[bytes] = []  # of calls that may have been executed
        self._needs_rest = self._needs_script = False
        self._phase, self._link = TAKING, READY
        self._fetch = NO_FETCH
        self._is_decide_soon = False  # ``decide`` is about to be called
        self._may_fetch = True  # until a burst, or the end
        self._is_empty = False  # the queue had nothing more when last asked
        self._is_awaiting = False  # a Recover, GiveBack or StopFetch is under way

    @property
    def is_ready(self) -> bool:
        """Whether calls can be made, as far as is known."""
        return self._link is READY

    def is_stopping(self) -> bool:
        """Return whether the worker takes no more jobs: nothing is to be waited for long."""
        return self._phase in (DRAINING, OVER)

    def is_pending(self, claim: bytes) -> bool:
        """Return whether the job with this claim waits here for its outcome to be sent, or to go back."""
        return self._outcomes.has(claim) or any(claim == each for _, each in self._giving_back)

    # Events: jobs.

    def outcome_ready(self, raw_id: bytes, claim: bytes, outcome: Outcome) -> Actions:
        """A job that was started has ended so."""
        self._outcomes.waiting.append(actions.PendingOutcome(raw_id, claim, outcome))
        self.running -= 1
        if not self.running:
            return self.decide()  # no other handler is about to end
        return _NOTHING if self._is_decide_soon or self.calls_in_flight >= MAX_CALLS else self._decide_soon()

    def give_back(self, claims: list[tuple[bytes, bytes]]) -> Actions:
        """Jobs that were started, id and claim of each, shall go back to the front of the queue."""
        ours = [(raw_id, claim) for raw_id, claim in claims if self.claimed.holds(raw_id, claim)]
        self._giving_back += ours
        self.places_taken -= len(claims) - len(ours)  # what was lost is not given back
        self.running -= len(claims)
        return self.decide()

    def claims_lost(self, claims: Sequence[tuple[bytes, bytes]]) -> Actions:
        """Redis no longer knows these claims, id and claim of each, of jobs whose handlers still run.

        Each was granted before Redis was asked (``HeldClaims.snapshot``), and its outcome cannot be on its
        way, for its handler runs: so somebody has taken it away.
        """
        return [actions.StopHandler(claim) for raw_id, claim in claims if self.claimed.release(raw_id, claim)]

    def given_back(self, action: actions.GiveBack) -> Actions:
        """``action`` was carried out."""
        self._is_awaiting = False
        self._requested -= bool(action.unclaimed)
        for raw_id, claim in action.claims:
            self.claimed.release(raw_id, claim)
            if self._fetched is not None and self._fetched.claim == claim:
                # The call that claims it was refused, and its handler has stopped: nobody runs it now.
                self._fetched = FetchedJob(raw_id, self._new_token())
                self.claimed.early = b""
        self.places_taken -= len(action.claims)
        self._leave_recovery()
        return self.decide()

    def give_back_failed(self, action: actions.GiveBack) -> Actions:
        """``action`` was not carried out, or nobody knows."""
        self._is_awaiting = False
        self._giving_back = action.claims + self._giving_back
        self._strays = action.strays + self._strays
        if self._link is states.RECOVERING:
            self._link = states.BROKEN
        if action.unclaimed:
            self._requested -= 1
            self._fetched = FetchedJob(action.unclaimed, self._new_token())
        self._give_up_last_duties()
        return self.decide()

    # Events: calls.

    def replied(
        self, call: ExchangeCall, facts: Sequence[int], is_empty: int, jobs: Sequence[Any], is_granted: int
    ) -> Actions:
        """Redis has executed ``call``; these are the parts of its reply, see ``lua/exchange.lua``."""
        if self._phase is OVER:
            return _NOTHING
        self.calls_in_flight -= 1
        self._requested -= call.requested
        if call.free:
            self._is_empty = bool(is_empty)
        results: list[Action] = []
        new_jobs = list(zip(jobs[::3], jobs[1::3], jobs[2::3], strict=True))
        first_place = 0
        if call.fetched is not None and call.fetched.is_started:
            # Place 0 of the call is that of this job, whether Redis has granted its claim or not.
            goes_on = self._settle_early_start(call.fetched, is_granted, results)
            first_place = 1 if goes_on or not is_granted else 0
            new_jobs = new_jobs[goes_on:]
        self.places_taken += len(new_jobs)
        self.running += len(new_jobs)
        if call.outcomes:
            self._settle_outcomes(call.outcomes, facts, results)
        if new_jobs:
            claimed: list[ClaimedJob] = []
            for place, (raw_id, record, deliveries) in enumerate(new_jobs, first_place):
                if raw_id in self.claimed:  # it has stalled here, and comes back
                    results.append(actions.StopHandler(self.claimed[raw_id]))
                claim = self.claimed[raw_id] = claim_of(call.token, place, deliveries)
                claimed.append((raw_id, record, deliveries, claim))
            results.append(actions.Start(claimed))
        return self._next_actions(results)

    def _settle_early_start(self, fetched: FetchedJob, is_granted: int, results: list[Action]) -> bool:
        """Return whether a job that was started early goes on; else its handler is stopped.

        If its outcome was lost before the call that claims it came through, the job is started again.
        """
        self.claimed.early = b""
        goes_on = bool(is_granted) and self.claimed.holds(fetched.raw_id, fetched.claim)
        if not goes_on:
            results.append(actions.StopHandler(fetched.claim))
        results.append(actions.ClaimKnown())
        return goes_on

    def _settle_outcomes(
        self, sent: list[actions.PendingOutcome], facts: Sequence[int], results: list[Action]
    ) -> None:
        unclaimed = b"" if self._fetched is None else self._fetched.claim
        recorded, lost = self._outcomes.answered(sent, facts, unclaimed)
        for each in recorded + lost if lost else recorded:
            if self.claimed.get(each.raw_id) == each.claim:  # as ``release``, which costs each job a call
                del self.claimed[each.raw_id]
        self.places_taken -= len(recorded) + len(lost)
        if recorded:
            results.append(actions.Recorded([each.outcome for each in recorded]))
        if lost:
            results.append(actions.Lost([each.outcome for each in lost]))

    def failed(self, call: ExchangeCall, failure: actions.Failure, error: RedisError) -> Actions:
        """``call`` has failed with ``error``: what it carried is held for another one."""
        if self._phase is OVER:
            return _NOTHING
        self.calls_in_flight -= 1
        self._requested -= call.requested
        was_lonely = bool(call.outcomes) and call.outcomes[0].is_lonely
        is_other = self._outcomes.failed(call.outcomes, call.free, failure, error)
        self._fetched = call.fetched or self._fetched
        later = (actions.RetryLater(),) if self._outcomes.wants_later() else ()
        if was_lonely and failure is actions.Failure.REFUSED:
            return self._next_actions([*later])
        self._link = states.BROKEN
        self._needs_script = self._needs_script or failure is actions.Failure.SCRIPT_MISSING
        self._needs_rest = self._needs_rest or not is_other
        if failure is actions.Failure.REPLY_LOST:
            self._unanswered_tokens.append(call.token)
        # Soon: if the connection broke, the other call is about to fail, too, and one recovery serves both.
        return (*later, *self._decide_soon())

    def retry_lonely(self) -> Actions:
        """The while of ``RetryLater`` is over."""
        self._outcomes.retry_lonely()
        return self.decide()

    def recovered(self, action: Recover, found: Sequence[tuple[bytes, bytes]], record: bytes) -> Actions:
        """``action`` was carried out: it ``found`` these ids and claims, and this record of ``record_of``."""
        self._is_awaiting = False
        results: list[Action] = []
        self._needs_script = self._needs_script and not action.needs_script
        if action.tokens:
            self._unanswered_tokens = [
                token for token in self._unanswered_tokens if token not in action.tokens
            ]
            fetched = self._fetched
            was_changed = bool(action.record_of) and fetched is not None and record != fetched.record
            self._settle_fetched(found, results, was_changed=was_changed)
            self._strays += [
                (raw_id, claim) for raw_id, claim in found if not self.claimed.holds(raw_id, claim)
            ]
            self._is_empty = False
        self._leave_recovery()
        return self._next_actions(results)

    def _leave_recovery(self) -> None:
        """Let calls be made again, unless another one has failed meanwhile, or strays are left.

        A stray may be a job whose outcome waits here, claimed again by the unanswered call that recorded that
        outcome. Only once it was given back does Redis say of the outcome that it is recorded.
        """
        if self._link is states.RECOVERING and not self._strays:
            self._link = READY

    def _settle_fetched(
        self, found: Sequence[tuple[bytes, bytes]], results: list[Action], *, was_changed: bool
    ) -> None:
        """Claim a fetched job no more if an unanswered call has claimed it already.

        Say call 1 claimed it, call 2 recorded its outcome, and both replies were lost: then its claim is gone
        again, and only its record tells, which is not the one that its handler was started with.
        """
        fetched = self._fetched
        if fetched is None or not (was_changed or any(raw_id == fetched.raw_id for raw_id, _ in found)):
            return
        self._fetched = None
        if not fetched.is_started:
            return
        self.claimed.early = b""
        if (fetched.raw_id, fetched.claim) not in found:
            results.append(actions.StopHandler(fetched.claim))
        results.append(actions.ClaimKnown())

    def recovery_failed(self) -> Actions:
        """Calls cannot be made yet."""
        self._is_awaiting = False
        self._link = states.BROKEN
        self._needs_rest = True
        self._give_up_last_duties()
        return self.decide()

    # Events: the blocking fetch.

    def fetched(self, raw_id: bytes, record: bytes) -> Actions:
        """The fetch has moved a job into ``active``.

        Its record is empty if it must not be started before it is claimed.
        """
        if self._phase is OVER:
            return _NOTHING
        self._fetch = NO_FETCH
        self._is_empty = False  # there may be more
        fetched = self._fetched = FetchedJob(raw_id, self._new_token())
        can_call = self.is_ready and self.calls_in_flight < MAX_CALLS and self._is_connected()
        if not (record and can_call and self._phase is TAKING):
            return self.decide()
        fetched.start_early(record)
        self.places_taken += 1
        self.running += 1
        # An earlier attempt that still runs here was lost: Redis knew of no claim when it looked at the job.
        stop = [actions.StopHandler(self.claimed[raw_id])] if raw_id in self.claimed else []
        self.claimed.hold_early(raw_id, fetched.claim)
        # Soon: a handler that does not wait has ended by then, and its outcome goes along with the next call.
        start = actions.StartEarly((raw_id, record, FIRST_DELIVERY, fetched.claim))
        return (self._next_call(), *stop, start, *self._decide_soon())

    def fetch_rests(self) -> Actions:
        """The fetch has failed, and is tried again later: until then calls ask the queue."""
        self._fetch = states.RESTING
        self._is_empty = False
        return self.decide()

    def fetch_ended(self) -> Actions:
        """The fetch has ended without a job, or its rest is over."""
        self._fetch = NO_FETCH
        return self.decide()

    def fetch_stopped(self) -> Actions:
        """``StopFetch`` was carried out; how the fetch ended came before."""
        self._is_awaiting = False
        return self.decide()

    # Events: commands of the worker.

    def pause(self, *, is_over: bool) -> Actions:
        """Ask for no jobs until the pause is over; those that calls in flight bring are started."""
        if self._phase in (TAKING, PAUSED):
            self._phase = TAKING if is_over else PAUSED
        return self.look()

    def drain(self) -> Actions:
        """Take no more jobs; outcomes are still recorded."""
        if self._phase is not OVER:
            self._phase = DRAINING
            self._may_fetch = False
        return self.decide()

    def burst(self) -> Actions:
        """Wait for no further job: ``Idle`` then means that the queue is empty."""
        self._may_fetch = False
        return self.decide()

    def look(self) -> Actions:
        """Ask the queue again: it may have been filled."""
        self._is_empty = False
        return self.decide()

    def end(self) -> None:
        """Answer no event from now on."""
        self._phase = OVER

    # What is due.

    def decide(self) -> Actions:
        """Return everything that is due now."""
        self._is_decide_soon = False
        return self._next_actions([])

    def _decide_soon(self) -> Actions:
        self._is_decide_soon = True
        return (_DECIDE_SOON,)

    def _next_actions(self, results: list[Action]) -> Actions:
        """Return the calls that are due, then what an event has led to, last what takes time.

        Calls come first: results may lead to further events, and calls are sent in the order decided.
        """
        if self._phase is OVER:
            return results
        due: list[Action] = []
        while self._link is READY and self.calls_in_flight < MAX_CALLS and self._has_work():
            if self._is_connected():
                due.append(self._next_call())
            else:
                self._link = states.BROKEN
        due += results
        if not self._is_awaiting:
            self._add_awaited(due)
        return due

    def _has_work(self) -> bool:
        """Return whether a call has anything to do."""
        outcomes, fetched = self._outcomes, self._fetched
        if outcomes.waiting or outcomes.lonely_due or (fetched is not None and self._may_claim(fetched)):
            return True
        is_full = self._is_empty or self._concurrency <= self.places_taken + self._requested
        return not (is_full or outcomes.unanswered) and self._may_ask() and self._free_places() > 0

    def _may_claim(self, fetched: FetchedJob) -> bool:
        """Return whether a fetched job is to be claimed; one not started may have to go back."""
        return self._phase is TAKING or fetched.is_started

    def _may_ask(self) -> bool:
        """Return whether calls may ask for jobs: the next one is the fetch's, while it waits."""
        return self._phase is TAKING and self._fetch is not WAITING

    def _free_places(self) -> int:
        is_fetching = self._fetch is WAITING or (self._fetched is not None and not self._fetched.is_started)
        return self._concurrency - self.places_taken - self._requested - is_fetching

    def _next_call(self) -> ExchangeCall:
        fetched = self._fetched
        if fetched is not None and self._may_claim(fetched):
            self._fetched = None
        else:
            fetched = None
        # The script records outcomes first, and a job that was started early must be claimed before it ends.
        is_started = fetched is not None and fetched.is_started
        outcomes = [] if is_started else self._outcomes.take(alone=fetched is None)
        count = len(outcomes)
        to_claim = int(fetched is not None and not is_started)
        # The places of the outcomes in this call are free once they are recorded, which is before the
        # script claims anything; another call may be faster and must not count on them.
        places = self._free_places() + count - to_claim
        is_asking = self._may_ask() and self._outcomes.allow_asking(outcomes)
        free = max(0, min(places, self._share, self._outcomes.limit)) if is_asking else 0
        requested = max(0, free + to_claim - count)
        self._requested += requested
        self.calls_in_flight += 1
        return ExchangeCall(
            self._new_token() if fetched is None else fetched.token, free, fetched, outcomes, requested
        )

    def _add_awaited(self, due: list[Action]) -> None:
        """Add what takes time: first what keeps calls from being made, last the wait for a job.

        Without a call in flight there was no work, so the queue was found empty: Idle, if nothing is held.
        """
        if self._phase is DRAINING and not (self._is_holding() or self._unanswered_tokens or self._strays):
            self._phase = OVER
            due.append(actions.Done())
        elif self._link is states.BROKEN:
            due.append(self._recover())
        elif self._giving_back or self._strays or self._fetched is not None:
            self._give_back_held(due)
        elif self._fetch is not NO_FETCH and (self._phase is PAUSED or not self._may_fetch):
            self._is_awaiting = True
            due.append(actions.StopFetch())
        elif not self.calls_in_flight and self._phase is not PAUSED:
            # A call in flight may be taking jobs: a fetch must not overtake it.
            if self._may_fetch and self._fetch is NO_FETCH and self._free_places() > 0:
                self._fetch = WAITING
                due.append(actions.Fetch())
            if not self.places_taken:
                due.append(actions.Idle())

    def _recover(self) -> Recover:
        self._is_awaiting = True
        self._link = states.RECOVERING
        fetched = self._fetched
        has_ended = fetched is not None and self._outcomes.has(fetched.claim)
        needs_rest, self._needs_rest = self._needs_rest, False
        record_of = fetched.raw_id if fetched is not None and has_ended else b""
        return Recover(needs_rest, self._needs_script, tuple(self._unanswered_tokens), record_of)

    def _give_back_held(self, due: list[Action]) -> None:
        unclaimed = b""
        if self._fetched is not None and not self._may_claim(self._fetched):
            unclaimed, self._fetched = self._fetched.raw_id, None
            self._requested += 1  # it keeps its place: giving it back may fail
        if not (self._giving_back or self._strays or unclaimed):
            return  # a fetched job waits for its turn to be claimed
        self._is_awaiting = True
        due.append(actions.GiveBack(self._giving_back, self._strays, unclaimed))
        self._giving_back, self._strays = [], []

    def _is_holding(self) -> bool:
        return bool(
            self.places_taken
            or self.calls_in_flight
            or self._fetched is not None
            or self._fetch is not NO_FETCH
            or self._giving_back
        )

    def _give_up_last_duties(self) -> None:
        """A draining worker looks once for what its unanswered calls claimed; else a stall check finds it."""
        if self._phase is DRAINING and not self._is_holding():
            self._unanswered_tokens.clear()
            self._strays.clear()

    def _new_token(self) -> bytes:
        self._calls_made += 1
        return b"%b-%x" % (self._token_prefix, self._calls_made)
