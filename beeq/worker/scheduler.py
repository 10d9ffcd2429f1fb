"""The scheduler: which call to Redis, which fetch, which handler is due. It decides, and does nothing.

No asyncio, no Redis, no clock. ``pump.py`` tells it events and carries out the actions that it answers.

=================== ========================================================================================
event               what it leads to; after each, the scheduler answers with everything that is due by then
=================== ========================================================================================
(what is due)       READY: ExchangeCall while outcomes wait, a fetched job is to be claimed, or places are
                    free and the queue may have jobs; at an empty queue Fetch; with nothing held, Idle.
                    Not connected, or BROKEN: Recover. DRAINING: StopFetch; GiveBack of a fetched job that
                    has not started; Done once nothing is held. OVER: nothing.
turn                nothing else
outcome_ready       the outcome waits; while other handlers run, TurnSoon: outcomes of one loop turn share a
                    call
replied             Recorded and Lost outcomes, Start of new jobs. Of a job that was started early also
                    ClaimKnown, and StopHandler if its claim was refused
failed              what the call carried is held again; BROKEN; TurnSoon
recovered           READY; what lost calls have claimed goes back unless it runs here
recovery_failed     BROKEN; the next Recover rests first
fetched             ExchangeCall, StartEarly, TurnSoon if the record came along
fetch_rests         calls ask the queue until the fetch is tried again
fetch_ended         a fetch may start
fetch_stopped       DRAINING goes on
give_back           the jobs are held until GiveBack is done
given_back          their places are free
give_back_failed    they are held again
drain               DRAINING: nothing is claimed any more, outcomes are recorded
burst, look         no more fetches; the queue is asked again
end                 OVER
=================== ========================================================================================

What holds after every event:

* Places: handlers running + outcomes not recorded + jobs asked for + one for a fetch ≤ concurrency. Beyond it
  only one: an outcome which Redis has dropped because it had refused, with an error, the call that claims it.
* At most two calls and one fetch are in flight; no fetch starts while a call is in flight that asks for jobs.
* The outcome of a job is sent after the call that claims it, over the same connection.
* Every claim ends once: recorded, given back, or lost.
* With something to do and a connection, something is in flight.
* One of Recover, GiveBack and StopFetch is under way at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any

from beeq.protocol.outcome import Outcome
from beeq.worker import actions
from beeq.worker.actions import (
    BROKEN,
    DRAINING,
    MAX_BATCH,
    MAX_CALLS,
    NO_FETCH,
    OVER,
    READY,
    RECOVERING,
    RESTING,
    TAKING,
    WAITING,
    Action,
    Actions,
    ExchangeCall,
    Failure,
    GiveBack,
    PendingOutcome,
    Recover,
    batch_size,
)
from beeq.worker.claims import FIRST_DELIVERY, ClaimedJob, FetchedJob, claim_of

_NOTHING: Actions = ()
_TURN_SOON = actions.TurnSoon()


class Scheduler:
    """Decides for one queue's worker.

    ``concurrency`` is its number of places; its tokens begin with its ``identity``, which no other has;
    ``is_connected`` returns whether there is a connection for calls now.
    """

    def __init__(self, *, concurrency: int, identity: bytes, is_connected: Callable[[], bool]) -> None:
        self._concurrency = concurrency
        self._identity = identity
        self._is_connected = is_connected
        #: What one call asks for at most.
        self._share = min(-(-concurrency // MAX_CALLS), MAX_BATCH)
        #: What is held, id → claim; the heartbeat beats for these until they are recorded.
        self.claimed: dict[bytes, bytes] = {}
        #: Places taken: by jobs that run, and by outcomes that are not recorded.
        self.taken = 0
        #: Calls without a reply.
        self.calls_in_flight = 0
        self._running = 0  # of these, jobs that run
        self._requested = 0  # free places that calls in flight may fill
        self._calls_made = 0
        self._outcomes: list[PendingOutcome] = []  # to be sent
        self._fetched: FetchedJob | None = None  # to be claimed
        self._giving_back: list[tuple[bytes, bytes]] = []  # id and claim of jobs to give back
        self._orphans: list[tuple[bytes, bytes]] = []  # … of jobs that run nowhere, and hold no place
        self._lost_tokens: list[bytes] = []  # of calls whose reply was lost
        self._needs_rest = False
        self._needs_script = False
        self._phase = TAKING
        self._link = READY
        self._fetch = NO_FETCH
        self._is_turn_soon = False  # ``turn`` is about to be called
        self._may_fetch = True  # until a burst, or the end
        self._is_empty = False  # the queue had nothing more when last asked
        self._is_awaiting = False  # a Recover, GiveBack or StopFetch is under way

    @property
    def is_ready(self) -> bool:
        """Whether calls can be made, as far as is known."""
        return self._link is READY

    def is_stopping(self) -> bool:
        """Return whether the worker takes no more jobs: nothing is to be waited for long."""
        return self._phase is not TAKING

    # Events: jobs.

    def outcome_ready(self, raw_id: bytes, claim: bytes, outcome: Outcome) -> Actions:
        """A job that was started has ended so."""
        self._outcomes.append(PendingOutcome(raw_id, claim, outcome))
        self._running -= 1
        if not self._running:
            return self.turn()  # no other handler is about to end
        return _NOTHING if self._is_turn_soon or self.calls_in_flight >= MAX_CALLS else self._turn_soon()

    def give_back(self, claims: list[tuple[bytes, bytes]]) -> Actions:
        """Jobs that were started, id and claim of each, shall go back to the front of the queue."""
        self._giving_back += claims
        self._running -= len(claims)
        return self.turn()

    def given_back(self, action: GiveBack) -> Actions:
        """``action`` was carried out."""
        self._is_awaiting = False
        for raw_id, claim in action.claims:
            self._release(raw_id, claim)
            if self._fetched is not None and self._fetched.claim == claim:
                # The call that claims it was refused, and its handler has stopped: nobody runs it now.
                self._fetched = FetchedJob(raw_id, self._new_token())
        self.taken -= len(action.claims)
        self._leave_recovery()
        return self.turn()

    def give_back_failed(self, action: GiveBack) -> Actions:
        """``action`` was not carried out, or nobody knows."""
        self._is_awaiting = False
        self._giving_back = action.claims + self._giving_back
        self._orphans = action.orphans + self._orphans
        if self._link is RECOVERING:
            self._link = BROKEN
        if action.unclaimed:
            self._fetched = FetchedJob(action.unclaimed, self._new_token())
        self._give_up_last_duties()
        return self.turn()

    # Events: calls.

    def replied(
        self, call: ExchangeCall, facts: Sequence[int], taken: int, jobs: Sequence[Any], is_granted: int
    ) -> Actions:
        """Redis has executed ``call``.

        Args:
            call: which one.
            facts: for each of its outcomes, 0 if the job had another owner; else it is recorded.
            taken: how many ids left ``waiting``.
            jobs: id, record and deliveries of each job handed out, one after the other.
            is_granted: 1 if the first of them is the fetched job that was started early.
        """
        if self._phase is OVER:
            return _NOTHING
        self.calls_in_flight -= 1
        self._requested -= call.requested
        if call.free:
            self._is_empty = taken < call.free
        results: list[Action] = []
        # In Redis, place 0 is that of a job that was started early, whether it was claimed or not.
        first, first_place = 0, 0
        if call.fetched is not None and call.fetched.is_started:
            first_place = 1 - is_granted
            first = 3 if self._is_running(call.fetched, is_granted, results) else 0
        started = (len(jobs) - first) // 3
        self.taken += started - len(call.outcomes)
        self._running += started
        if call.outcomes:
            self._sort_outcomes(call.outcomes, facts, results)
        if started:
            new_jobs: list[ClaimedJob] = []
            for at in range(first, len(jobs), 3):
                raw_id, deliveries = jobs[at], jobs[at + 2]
                claim = self.claimed[raw_id] = claim_of(call.token, at // 3 + first_place, deliveries)
                new_jobs.append((raw_id, jobs[at + 1], deliveries, claim))
            results.append(actions.Start(new_jobs))
        return self._answer(results)

    def _is_running(self, fetched: FetchedJob, is_granted: int, results: list[Action]) -> bool:
        """Return whether a job that was started early goes on; if its claim was refused, have it stopped."""
        # If its outcome was lost before the call that claims it came through, the job is started again.
        is_running = bool(is_granted) and self.claimed.get(fetched.raw_id) == fetched.claim
        if not is_running:
            results.append(actions.StopHandler(fetched.claim))
        results.append(actions.ClaimKnown())
        return is_running

    def _sort_outcomes(
        self, pending: list[PendingOutcome], facts: Sequence[int], results: list[Action]
    ) -> None:
        recorded: list[Outcome] = []
        lost: list[Outcome] = []
        fetched = self._fetched
        for each, fact in zip(pending, facts, strict=True):
            if not fact and fetched is not None and fetched.claim == each.claim:
                # Redis refused the call that was to claim this job, and then this one, which was sent
                # behind it, found no claim: both are sent again.
                self._outcomes.insert(0, each)
                self.taken += 1
                continue
            self._release(each.raw_id, each.claim)
            (recorded if fact else lost).append(each.outcome)
        if recorded:
            results.append(actions.Recorded(recorded))
        if lost:
            results.append(actions.Lost(lost))

    def failed(self, call: ExchangeCall, failure: Failure) -> Actions:
        """``call`` has failed: what it carried is held for another one."""
        if self._phase is OVER:
            return _NOTHING
        self.calls_in_flight -= 1
        self._requested -= call.requested
        self._outcomes = call.outcomes + self._outcomes
        self._fetched = call.fetched or self._fetched
        self._link = BROKEN
        if failure is Failure.SCRIPT_MISSING:
            self._needs_script = True
        else:
            self._needs_rest = True
        if failure is Failure.REPLY_LOST:
            self._lost_tokens.append(call.token)
        # Soon: if the connection broke, the other call is about to fail, too, and one recovery serves both.
        return self._turn_soon()

    def recovered(self, action: Recover, found: Sequence[tuple[bytes, bytes]], record: bytes) -> Actions:
        """``action`` was carried out: it ``found`` these ids and claims, and this record of ``record_of``."""
        self._is_awaiting = False
        results: list[Action] = []
        self._needs_script = self._needs_script and not action.needs_script
        if action.tokens:
            self._lost_tokens = [token for token in self._lost_tokens if token not in action.tokens]
            fetched = self._fetched
            was_changed = bool(action.record_of) and fetched is not None and record != fetched.record
            self._sort_fetched(found, results, was_changed=was_changed)
            self._orphans += [(raw_id, claim) for raw_id, claim in found if self.claimed.get(raw_id) != claim]
            self._is_empty = False
        self._leave_recovery()
        return self._answer(results)

    def _leave_recovery(self) -> None:
        """Let calls be made again, unless another one has failed meanwhile, or orphans are left.

        An orphan may be a job whose outcome waits here, claimed again by the lost call that recorded that
        outcome. Only once it was given back can Redis answer that the outcome is recorded.
        """
        if self._link is RECOVERING and not self._orphans:
            self._link = READY

    def _sort_fetched(
        self, found: Sequence[tuple[bytes, bytes]], results: list[Action], *, was_changed: bool
    ) -> None:
        """Claim a fetched job no more if a lost call has claimed it already.

        If its record was changed since its handler was started, two lost calls may have claimed the job and
        recorded its outcome: then its claim is gone again.
        """
        fetched = self._fetched
        if fetched is None or not (was_changed or any(raw_id == fetched.raw_id for raw_id, _ in found)):
            return
        self._fetched = None
        if not fetched.is_started:
            return
        if (fetched.raw_id, fetched.claim) not in found:
            results.append(actions.StopHandler(fetched.claim))
        results.append(actions.ClaimKnown())

    def recovery_failed(self) -> Actions:
        """Calls cannot be made yet."""
        self._is_awaiting = False
        self._link = BROKEN
        self._needs_rest = True
        self._give_up_last_duties()
        return self.turn()

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
            return self.turn()
        fetched.start_early(record)
        self.taken += 1
        self._running += 1
        self.claimed[raw_id] = fetched.claim
        # Soon: a handler that does not wait has ended by then, and its outcome goes along with the next call.
        start = actions.StartEarly((raw_id, record, FIRST_DELIVERY, fetched.claim))
        return (self._next_call(), start, *self._turn_soon())

    def fetch_rests(self) -> Actions:
        """The fetch has failed, and is tried again later: until then calls ask the queue."""
        self._fetch = RESTING
        self._is_empty = False
        return self.turn()

    def fetch_ended(self) -> Actions:
        """The fetch has ended without a job, or its rest is over."""
        self._fetch = NO_FETCH
        return self.turn()

    def fetch_stopped(self) -> Actions:
        """``StopFetch`` was carried out; how the fetch ended came before."""
        self._is_awaiting = False
        return self.turn()

    # Events: what the worker is for.

    def drain(self) -> Actions:
        """Take no more jobs; outcomes are still recorded."""
        if self._phase is TAKING:
            self._phase = DRAINING
            self._may_fetch = False
        return self.turn()

    def burst(self) -> Actions:
        """Wait for no further job: ``Idle`` then means that the queue is empty."""
        self._may_fetch = False
        return self.turn()

    def look(self) -> Actions:
        """Ask the queue again: it may have been filled."""
        self._is_empty = False
        return self.turn()

    def end(self) -> None:
        """Answer no event from now on."""
        self._phase = OVER

    # What is due.

    def turn(self) -> Actions:
        """Answer with everything that is due now."""
        self._is_turn_soon = False
        return self._answer([])

    def _turn_soon(self) -> Actions:
        self._is_turn_soon = True
        return (_TURN_SOON,)

    def _answer(self, results: list[Action]) -> Actions:
        """Answer with the calls that are due, then with what an event has led to, last with what takes time.

        Calls come first: results may lead to further events, and calls are sent in the order decided.
        """
        if self._phase is OVER:
            return results
        due: list[Action] = []
        while self._link is READY and self.calls_in_flight < MAX_CALLS and self._has_work():
            if self._is_connected():
                due.append(self._next_call())
            else:
                self._link = BROKEN
        due += results
        if not self._is_awaiting:
            self._add_awaited(due)
        return due

    def _has_work(self) -> bool:
        """Return whether a call has anything to do."""
        if self._outcomes or (self._fetched is not None and self._may_claim(self._fetched)):
            return True
        return self._may_ask() and not self._is_empty and self._free_places() > 0

    def _may_claim(self, fetched: FetchedJob) -> bool:
        """Return whether a fetched job is to be claimed; a draining worker gives back one not started."""
        return self._phase is TAKING or fetched.is_started

    def _may_ask(self) -> bool:
        """Return whether calls may ask for jobs: the next one is the fetch's, while it waits."""
        return self._phase is TAKING and self._fetch is not WAITING

    def _free_places(self) -> int:
        is_fetching = self._fetch is WAITING or (self._fetched is not None and not self._fetched.is_started)
        return self._concurrency - self.taken - self._requested - is_fetching

    def _next_call(self) -> ExchangeCall:
        fetched = self._fetched
        if fetched is not None and self._may_claim(fetched):
            self._fetched = None
        else:
            fetched = None
        # The script records outcomes first, and a job that was started early must be claimed before it ends.
        is_started = fetched is not None and fetched.is_started
        count = 0 if is_started else batch_size(self._outcomes, self.taken)
        outcomes, self._outcomes = self._outcomes[:count], self._outcomes[count:]
        to_claim = int(fetched is not None and not is_started)
        # The places of the outcomes in this call are free once they are recorded, which is before the
        # script claims anything; another call may be faster and must not count on them.
        places = self._free_places() + count - to_claim
        free = max(0, min(places, self._share)) if self._may_ask() else 0
        requested = max(0, free + to_claim - count)
        self._requested += requested
        self.calls_in_flight += 1
        return ExchangeCall(
            self._new_token() if fetched is None else fetched.token, free, fetched, outcomes, requested
        )

    def _add_awaited(self, due: list[Action]) -> None:
        """Add an action that takes time: first what keeps calls from being made, last the wait for a job."""
        if self._phase is DRAINING and not (self._is_holding() or self._lost_tokens or self._orphans):
            self._phase = OVER
            due.append(actions.Done())
        elif self._link is BROKEN:
            due.append(self._recover())
        elif self._giving_back or self._orphans or self._fetched is not None:
            self._give_back_held(due)
        elif self._fetch is not NO_FETCH and not self._may_fetch:
            self._is_awaiting = True
            due.append(actions.StopFetch())
        elif not self.calls_in_flight:
            # A call in flight may be taking jobs: a fetch must not overtake it.
            if self._may_fetch and self._fetch is NO_FETCH and self._free_places() > 0:
                self._fetch = WAITING
                due.append(actions.Fetch())
            if not self.taken:
                due.append(actions.Idle())

    def _recover(self) -> Recover:
        self._is_awaiting = True
        self._link = RECOVERING
        fetched = self._fetched
        has_ended = fetched is not None and any(each.claim == fetched.claim for each in self._outcomes)
        needs_rest, self._needs_rest = self._needs_rest, False
        record_of = fetched.raw_id if fetched is not None and has_ended else b""
        return Recover(needs_rest, self._needs_script, tuple(self._lost_tokens), record_of)

    def _give_back_held(self, due: list[Action]) -> None:
        unclaimed = b""
        if self._fetched is not None and not self._may_claim(self._fetched):
            unclaimed, self._fetched = self._fetched.raw_id, None
        if not (self._giving_back or self._orphans or unclaimed):
            return  # a fetched job waits for its turn to be claimed
        self._is_awaiting = True
        due.append(GiveBack(self._giving_back, self._orphans, unclaimed))
        self._giving_back, self._orphans = [], []

    def _is_holding(self) -> bool:
        return bool(
            self.taken
            or self.calls_in_flight
            or self._fetched is not None
            or self._fetch is not NO_FETCH
            or self._giving_back
        )

    def _give_up_last_duties(self) -> None:
        """While draining, what lost calls have claimed is looked for once: a stall check finds it later."""
        if self._phase is DRAINING and not self._is_holding():
            self._lost_tokens.clear()
            self._orphans.clear()

    def _release(self, raw_id: bytes, claim: bytes) -> None:
        """Stop beating for a job, unless the same id was claimed again meanwhile."""
        if self.claimed.get(raw_id) == claim:
            del self.claimed[raw_id]

    def _new_token(self) -> bytes:
        self._calls_made += 1
        return b"%b-%x" % (self._identity, self._calls_made)
