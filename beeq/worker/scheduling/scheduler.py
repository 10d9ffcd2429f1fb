"""The scheduler decides which call to Redis, which fetch, which handler comes next. It carries out nothing.

The folder's docstring lists its events and invariants. ``pump.py`` reports the events, and carries out the
returned actions (``actions.py``). The ordinary round: ``decide`` returns
ExchangeCall, which asks for jobs; ``replied`` returns Start; when a handler has ended, ``outcome_ready``
returns the next ExchangeCall, which carries the outcome. At an empty queue, Fetch waits for a job.
"""

from collections.abc import Callable, Sequence

from beeq.errors import RedisError
from beeq.protocol.outcome import Outcome
from beeq.worker.scheduling import actions, states
from beeq.worker.scheduling.actions import MAX_CALLS, Action, Actions, ExchangeCall, ExchangeReply, Recover
from beeq.worker.scheduling.claims import FIRST_DELIVERY, FetchedJob, HeldClaims, tokens
from beeq.worker.scheduling.pending_outcomes import PendingOutcomes
from beeq.worker.scheduling.places import WorkerPlaces
from beeq.worker.scheduling.repairs import Repairs
from beeq.worker.scheduling.states import DRAINING, NO_FETCH, OVER, PAUSED, READY, TAKING, WAITING

_NOTHING: Actions = ()
_CLAIM_KNOWN, _DECIDE_SOON = actions.ClaimKnown(), actions.DecideSoon()
_FETCH, _IDLE = actions.Fetch(), actions.Idle()


class Scheduler:
    """Decides for one queue's worker.

    Args:
        concurrency: places: how many jobs may be held at once.
        token_prefix: a random text that the tokens of this worker's calls begin with.
        is_connected: whether there is a connection for calls now.
        clock: returns the time in seconds.
        begin_within_s: how soon a job that is claimed ahead is to begin.
    """

    def __init__(
        self,
        *,
        concurrency: int,
        token_prefix: bytes,
        is_connected: Callable[[], bool],
        clock: Callable[[], float],
        begin_within_s: float,
    ) -> None:
        self._tokens = tokens(token_prefix)  # of further calls
        self._is_connected = is_connected
        self.places = WorkerPlaces(concurrency, clock=clock, begin_within_s=begin_within_s)
        self.claimed = HeldClaims()
        self.calls_in_flight = 0  #: Calls without a reply.
        self._is_check_due = False  # ``check_ahead`` is about to be called
        self._outcomes = PendingOutcomes()  # to be sent
        self._fetched: FetchedJob | None = None  # to be claimed
        self._repairs = Repairs()
        self._phase, self._link = TAKING, READY
        self._fetch = NO_FETCH
        self._is_decide_soon = False  # ``turn_ended`` is about to be called
        self._may_fetch = True  # until a burst, or the end
        self._is_empty = False  # the queue had nothing more when last asked
        self._is_awaiting = False  # a Recover, GiveBack or StopFetch is under way

    @property
    def is_ready(self) -> bool:
        """Whether calls can be made, as far as is known."""
        return self._link is READY

    def is_stopping(self) -> bool:
        """Return whether the worker takes no more jobs, so that nothing may wait for long."""
        return self._phase in (DRAINING, OVER)

    def takes_jobs(self) -> bool:
        """Return whether a place is free, and it waits for jobs; not in a burst."""
        return self.is_ready and self._phase is TAKING and self._may_fetch and not self.places.is_full()

    def is_pending(self, claim: bytes) -> bool:
        """Return whether the job with this claim waits here for its outcome to be sent, or to go back."""
        return self._outcomes.has(claim) or self._repairs.is_giving_back(claim)

    # Events: jobs.

    def outcome_ready(self, raw_id: bytes, claim: bytes, outcome: Outcome) -> Actions:
        """Take the outcome of a started job."""
        self._outcomes.waiting.append(actions.PendingOutcome(raw_id, claim, outcome))
        places = self.places
        places.running -= 1
        if places.redelivered:
            places.redelivered.discard(claim)
        if not places.running:
            return self.decide()  # no other handler is about to end
        if self._is_decide_soon:
            return _NOTHING
        return self._decide_soon() if places.ahead or self.calls_in_flight < places.calls() else _NOTHING

    def give_back(self, claims: list[tuple[bytes, bytes]]) -> Actions:
        """Give started jobs, id and claim of each, back to the front of the queue."""
        ours = [(raw_id, claim) for raw_id, claim in claims if self.claimed.holds(raw_id, claim)]
        self._repairs.giving_back += ours
        self.places.taken -= len(claims) - len(ours)  # lost ones are not given back
        self.places.running -= len(claims)
        self.places.redelivered.difference_update(claim for _, claim in claims)
        return self.decide()

    def check_ahead(self) -> Actions:
        """Give back the jobs claimed ahead that have not begun in time, and those behind them."""
        self._is_check_due = False
        if self.places.is_overdue():
            self._repairs.giving_back += self.places.leave_ahead()
        return self.decide()

    def ahead_taken(self, claims: list[tuple[bytes, bytes]], *, is_done: bool) -> Actions:
        """Note that the heartbeat's thread took these out of ``ahead``, and whether it gave them back."""
        if is_done:
            for raw_id, claim in claims:
                self.claimed.release(raw_id, claim)
            self.places.taken -= len(claims)
        else:
            self._repairs.giving_back += claims
        return self.decide()

    def claims_lost(self, claims: Sequence[tuple[bytes, bytes]]) -> Actions:
        """Stop handlers that still run although Redis no longer knows their claims (id and claim of each).

        Each was granted before Redis was asked (``HeldClaims.snapshot``), and its outcome cannot be on its
        way, since its handler runs: so the job was taken away.
        """
        return [actions.StopHandler(claim) for raw_id, claim in claims if self.claimed.release(raw_id, claim)]

    def given_back(self, action: actions.GiveBack) -> Actions:
        """``action`` was carried out."""
        self._is_awaiting = False
        self.places.reserve(-bool(action.unclaimed))
        for raw_id, claim in action.claims:
            self.claimed.release(raw_id, claim)
            if self._fetched is not None and self._fetched.claim == claim:
                # The call that claims it was refused, and its handler has stopped: no worker runs it now.
                self._fetched = FetchedJob(raw_id, next(self._tokens))
                self.claimed.early = b""
        self.places.taken -= len(action.claims)
        self._leave_recovery()
        return self.decide()

    def give_back_failed(self, action: actions.GiveBack) -> Actions:
        """``action`` was not carried out, or it is unknown."""
        self._is_awaiting = False
        self._repairs.give_back_failed(action)
        if self._link is states.RECOVERING:
            self._link = states.BROKEN
        if action.unclaimed:
            self.places.reserve(-1)
            self._fetched = FetchedJob(action.unclaimed, next(self._tokens))
        self._give_up_unknown_claims()
        return self.decide()

    # Events: calls.

    def replied(self, call: ExchangeCall, reply: ExchangeReply) -> Actions:
        """Redis has executed ``call``."""
        if self._phase is OVER:
            return _NOTHING
        self.calls_in_flight -= 1
        self.places.answered(call)
        if call.free or call.ahead:
            self._is_empty = bool(reply.flags & actions.IS_EMPTY)
        results: list[Action] = []
        jobs = reply.jobs
        first_place = 0
        if call.fetched is not None and call.fetched.is_started:
            # Place 0 of the call is that of this job, whether Redis has granted its claim or not.
            goes_on = self._settle_early_start(call.fetched, reply.is_granted, results)
            first_place = 1 if goes_on or not reply.is_granted else 0
            jobs = jobs[3 * goes_on :]
        if call.outcomes:
            self._settle_outcomes(call.outcomes, reply.facts, results)
        if jobs:
            claimed, lost = self.claimed.hold_new(call.token, first_place, jobs[::3], jobs[1::3], jobs[2::3])
            # The job stalled here and came back.
            results += map(actions.StopHandler, lost)
            at_once = self.places.take(claimed, reply.ahead, call)
            if at_once:
                results.append(actions.Start(at_once))
            if self._phase is not TAKING:
                self._repairs.giving_back += self.places.leave_ahead()
        return self._next_actions(results)

    def _settle_early_start(self, fetched: FetchedJob, is_granted: int, results: list[Action]) -> bool:
        """Return whether a job that was started early goes on; else its handler is stopped.

        A claim that is granted after this worker has dropped it, because its outcome was lost, starts the job
        again.
        """
        self.claimed.early = b""
        goes_on = bool(is_granted) and self.claimed.holds(fetched.raw_id, fetched.claim)
        if not goes_on:
            results.append(actions.StopHandler(fetched.claim))
        results.append(_CLAIM_KNOWN)
        return goes_on

    def _settle_outcomes(
        self, sent: list[actions.PendingOutcome], facts: Sequence[int], results: list[Action]
    ) -> None:
        unclaimed = b"" if self._fetched is None else self._fetched.claim
        recorded, lost = self._outcomes.answered(sent, facts, unclaimed)
        for each in recorded + lost if lost else recorded:
            if self.claimed.get(each.raw_id) == each.claim:  # as ``release``, which costs each job a call
                del self.claimed[each.raw_id]
        self.places.taken -= len(recorded) + len(lost)
        if recorded:
            results.append(actions.Recorded([each.outcome for each in recorded]))
        if lost:
            results.append(actions.Lost([each.outcome for each in lost]))

    def failed(self, call: ExchangeCall, failure: actions.Failure, error: RedisError) -> Actions:
        """Hold the contents of a failed call for another one."""
        if self._phase is OVER:
            return _NOTHING
        self.calls_in_flight -= 1
        self.places.answered(call)
        was_lonely = bool(call.outcomes) and call.outcomes[0].is_lonely
        is_other = self._outcomes.failed(call.outcomes, call.free + call.ahead, failure, error)
        self._fetched = call.fetched or self._fetched
        later = (actions.RetryLater(),) if self._outcomes.wants_later() else ()
        if was_lonely and failure is actions.Failure.REFUSED:
            return self._next_actions([*later])
        self._link = states.BROKEN
        self._repairs.call_failed(call, failure, needs_rest=not is_other)
        # Soon, not now: if the connection broke, the other call fails, too, and one recovery serves both.
        return (*later, *self._decide_soon())

    def retry_lonely(self) -> Actions:
        """Send lonely outcomes again, as ``RetryLater`` has asked."""
        self._outcomes.retry_lonely()
        return self.decide()

    def recovered(self, action: Recover, found: Sequence[tuple[bytes, bytes]], record: bytes) -> Actions:
        """Take the results of ``action``: the ids and claims ``found``, and the record of ``record_of``."""
        self._is_awaiting = False
        results: list[Action] = []
        if action.tokens:
            fetched = self._fetched
            was_changed = bool(action.record_of) and fetched is not None and record != fetched.record
            self._settle_fetched(found, results, was_changed=was_changed)
            self._is_empty = False
        self._repairs.recovered(action, found, self.claimed)
        self._leave_recovery()
        return self._next_actions(results)

    def _leave_recovery(self) -> None:
        """Allow calls again, unless another one has failed meanwhile, or strays are left.

        An unanswered call may have recorded a job's outcome and claimed the job again: a stray. It goes back
        before the outcome, which waits here, is sent again; Redis would take that for another claim's.
        """
        if self._link is states.RECOVERING and not self._repairs.strays:
            self._link = READY

    def _settle_fetched(
        self, found: Sequence[tuple[bytes, bytes]], results: list[Action], *, was_changed: bool
    ) -> None:
        """Do not claim a fetched job again if an unanswered call has claimed it already.

        Say call 1 claimed it, call 2 recorded its outcome, and both replies were lost: then its claim is gone
        again, and only its record shows it, which differs from the one that its handler was started with.
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
        results.append(_CLAIM_KNOWN)

    def recovery_failed(self) -> Actions:
        """Note that calls cannot be made yet."""
        self._is_awaiting = False
        self._link = states.BROKEN
        self._repairs.recovery_failed()
        self._give_up_unknown_claims()
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
        can_call = self._link is READY and self.calls_in_flight < MAX_CALLS and self._is_connected()
        starts = record and can_call and self._phase is TAKING
        fetched = self._fetched = FetchedJob(raw_id, next(self._tokens), record if starts else b"")
        if not starts:
            return self.decide()
        self.places.taken += 1
        self.places.running += 1
        # An earlier attempt that still runs here was lost: Redis knew of no claim when it looked at the job.
        stop = [actions.StopHandler(self.claimed[raw_id])] if raw_id in self.claimed else []
        self.claimed.hold_early(raw_id, fetched.claim)
        # Soon, not now: a handler that does not wait has ended by then, and the call carries its outcome.
        start = actions.StartEarly((raw_id, record, FIRST_DELIVERY, fetched.claim))
        return (self._next_call(), *stop, start, *self._decide_soon())

    def fetch_rests(self) -> Actions:
        """Let calls ask the queue until a failed fetch is tried again."""
        self._fetch = states.RESTING
        self._is_empty = False
        return self.decide()

    def fetch_ended(self) -> Actions:
        """Note that the fetch has ended without a job, or its rest is over."""
        self._fetch = NO_FETCH
        return self.decide()

    def fetch_stopped(self) -> Actions:
        """Note that ``StopFetch`` was carried out; the fetch's own end was reported before."""
        self._is_awaiting = False
        return self.decide()

    # Events: commands of the worker.

    def pause(self, *, is_over: bool) -> Actions:
        """Ask for no jobs until the pause is over; jobs of calls in flight are still started."""
        if self._phase in (TAKING, PAUSED):
            self._phase = TAKING if is_over else PAUSED
        if not is_over:
            self._repairs.giving_back += self.places.leave_ahead()
        return self.look()

    def drain(self) -> Actions:
        """Take no more jobs; outcomes are still recorded."""
        if self._phase is not OVER:
            self._phase = DRAINING
            self._may_fetch = False
            self._repairs.giving_back += self.places.leave_ahead()
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

    # Due actions.

    def decide(self) -> Actions:
        """Return everything that is due now."""
        self._is_decide_soon = False
        return self._next_actions([])

    def turn_ended(self) -> Actions:
        """Decide now: the turn of the event loop in which DecideSoon was due is over."""
        return self.decide() if self._is_decide_soon else _NOTHING  # otherwise it was done meanwhile

    def _decide_soon(self) -> Actions:
        self._is_decide_soon = True
        return (_DECIDE_SOON,)

    def _next_actions(self, results: list[Action]) -> Actions:
        """Return due calls first, then the event's results, last the actions that take time.

        Calls come first: results may lead to further events, and calls are sent in the order decided.
        """
        if self._phase is OVER:
            return results
        due: list[Action] = []
        most_calls = self.places.calls() if self._link is READY else 0
        while self.calls_in_flight < most_calls and self._has_work():
            if not self._is_connected():
                self._link = states.BROKEN
                break
            due.append(self._next_call())
        due += results
        if self.places.ahead:
            self._add_begins(due)
        if not self._is_awaiting:
            self._add_awaited(due)
        return due

    def _add_begins(self, due: list[Action]) -> None:
        """Begin as many jobs that were claimed ahead as there are places free now."""
        # Without a connection the begin cannot be noted, and another worker might take the jobs back.
        if self._link is READY and self._is_connected():
            begun, noted = self.places.begin(self.claimed)
            if noted:
                due.append(actions.NoteBegins(noted))
            if begun:
                due.append(actions.Start(begun))
        if self.places.ahead and not self._is_check_due:
            self._is_check_due = True
            due.append(actions.CheckAhead(self.places.ahead.oldest_s))

    def _has_work(self) -> bool:
        """Return whether a call has anything to do."""
        outcomes, fetched = self._outcomes, self._fetched
        if outcomes.waiting or outcomes.lonely_due or (fetched is not None and self._may_claim(fetched)):
            return True
        if self._is_empty or outcomes.unanswered or not self.places.may_be_free():
            return False
        return self._may_ask() and self.places.free() > 0

    def _may_claim(self, fetched: FetchedJob) -> bool:
        """Return whether to claim a fetched job; one that was not started may have to go back."""
        return self._phase is TAKING or fetched.is_started

    def _may_ask(self) -> bool:
        """Return whether calls may ask for jobs: while a fetch waits, the next job is the fetch's."""
        return self._phase is TAKING and self._fetch is not WAITING

    def _next_call(self) -> ExchangeCall:
        fetched = self._fetched
        if fetched is not None and self._may_claim(fetched):
            self._fetched = None
        else:
            fetched = None
        # The script records outcomes first, and a job that was started early must be claimed before it ends.
        is_started = fetched is not None and fetched.is_started
        outcomes = [] if is_started else self._outcomes.take(alone=fetched is None)
        to_claim = int(fetched is not None and not is_started)
        call = ExchangeCall(next(self._tokens) if fetched is None else fetched.token, 0, fetched, outcomes)
        if self._may_ask() and self._outcomes.allow_asking(outcomes):
            call.free, call.ahead = self.places.wanted(
                ended=len(outcomes),
                to_claim=to_claim,
                most=self._outcomes.limit,
                may_claim_ahead=self._may_fetch,
            )
        self.places.sent(call, to_claim=to_claim)
        self.calls_in_flight += 1
        return call

    def _add_awaited(self, due: list[Action]) -> None:
        """Add actions that take time: first those that calls must wait for, last the wait for a job.

        No call in flight means no work, so the queue was found empty: Idle, if nothing is held.
        """
        if self._phase is DRAINING and not (self._is_holding() or self._repairs.has_unknown()):
            self._phase = OVER
            due.append(actions.Done())
        elif self._link is states.BROKEN:
            due.append(self._recover())
        elif self._repairs.giving_back or self._repairs.strays or self._fetched is not None:
            self._give_back_held(due)
        elif self._fetch is not NO_FETCH and (self._phase is PAUSED or not self._may_fetch):
            self._is_awaiting = True
            due.append(actions.StopFetch())
        elif not self.calls_in_flight and self._phase is not PAUSED:
            # A call in flight may be taking jobs: a fetch must not overtake it.
            if self._may_fetch and self._fetch is NO_FETCH and self.places.free() > 0:
                self._fetch = WAITING
                due.append(_FETCH)
            if not self.places.taken:
                due.append(_IDLE)

    def _recover(self) -> Recover:
        self._is_awaiting = True
        self._link = states.RECOVERING
        fetched = self._fetched
        has_ended = fetched is not None and self._outcomes.has(fetched.claim)
        return self._repairs.recover(fetched.raw_id if fetched is not None and has_ended else b"")

    def _give_back_held(self, due: list[Action]) -> None:
        unclaimed = b""
        if self._fetched is not None and not self._may_claim(self._fetched):
            unclaimed, self._fetched = self._fetched.raw_id, None
            self.places.reserve(1)  # the job keeps its place: giving it back may fail
        action = self._repairs.give_back(unclaimed)
        if action is not None:  # otherwise a fetched job waits for its turn to be claimed
            self._is_awaiting = True
            due.append(action)

    def _is_holding(self) -> bool:
        return bool(
            self.places.taken
            or self.calls_in_flight
            or self._fetched is not None
            or self._fetch is not NO_FETCH
            or self._repairs.giving_back
        )

    def _give_up_unknown_claims(self) -> None:
        """Drop open repairs: a draining worker looks for jobs of unanswered calls only once."""
        if self._phase is DRAINING and not self._is_holding():
            self._repairs.leave()
