"""The world around a scheduler, without a server: a Redis, a connection, a fetch, handlers and other workers.

``World.carry_out`` does what the pump does with actions, and asserts what must hold of each. Redis executes
calls in the order in which they were sent, as ``lua/exchange.lua`` says; the connection may break before or
after that. Everything that happens is a method, so that a test may choose any order.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from beeq.errors import RedisRefused, RedisUnavailable
from beeq.protocol.outcome import Outcome
from beeq.worker.scheduling import actions
from beeq.worker.scheduling.actions import ExchangeCall, Failure, GiveBack, PendingOutcome, Recover
from beeq.worker.scheduling.claims import claim_of, token_of

TOKEN_PREFIX = b"me"
#: The message of an outcome that the server does not take.
REFUSED = b"far too long"
#: How soon a job that is claimed ahead is to begin.
BEGIN_WITHIN_S = 1.0
#: How many outcomes one call may record while the server's list of running jobs is long.
FEW = 2


class FakeJob:
    """What is asked of a job whose outcome Redis refuses."""

    claimed_record = b"{}"

    def __init__(self, raw_id: bytes, claim: bytes) -> None:
        self.raw_id = raw_id
        self.claim = claim
        self.options: dict[str, Any] = {}
        self.data: Any = {}
        self.status = "created"
        self.progress: Any = 0

    def saved_id(self) -> str:
        return self.raw_id.decode()


def made_outcome(job: FakeJob, record: bytes, *, is_retried: bool, is_refused: bool) -> Outcome:
    """Return a short outcome, or one that the server does not take."""
    return Outcome(job, "retrying" if is_retried else "succeeded", record, REFUSED if is_refused else b"")


class FakeRedis:
    """Where each job is, and whose."""

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()  # the right end is taken next
        self.active: list[bytes] = []
        self.claims: dict[bytes, bytes] = {}
        self.deliveries: dict[bytes, int] = {}
        self.records: dict[bytes, bytes] = {}
        self.ahead: dict[bytes, tuple[bytes, float]] = {}  # claim of a job claimed ahead → id, and its time
        self.recorded: list[Any] = []
        self.is_long_active = False  # a call looks at a few outcomes only
        self.are_records_long = False  # a call hands out one job only
        self.refuses_retries = False  # their key is of the wrong type

    def add(self, raw_id: bytes) -> None:
        self.records[raw_id] = b"new"
        self.waiting.appendleft(raw_id)

    def exchange(self, call: ExchangeCall, now_s: float) -> tuple[list[int], int, list[Any], int, int]:
        looked_at = call.outcomes[:FEW] if self.is_long_active else call.outcomes
        facts = [self._record(pending) for pending in looked_at]
        free = max(0, call.free - (len(call.outcomes) - len(facts)))
        candidates: list[bytes] = []
        fetched = call.fetched
        if fetched is not None and fetched.raw_id in self.active:
            candidates += [] if fetched.is_started and fetched.raw_id in self.claims else [fetched.raw_id]
        is_started = fetched is not None and fetched.is_started
        is_granted = is_started and bool(candidates)
        is_empty = len(self.waiting) < free or (call.ahead > 0 and not self.waiting)
        taken = min(free, len(self.waiting))
        if self.are_records_long and len(candidates) + taken > 1:
            taken, is_empty = 1 - len(candidates), False
        for _ in range(taken):
            raw_id = self.waiting.pop()
            self.active.append(raw_id)
            candidates.append(raw_id)
        at_once = len(candidates)
        is_behind = any(self.deliveries.get(raw_id) for raw_id in candidates)
        ahead = 0 if self.are_records_long else min(call.ahead, len(self.waiting) // 2)
        while len(candidates) < at_once + ahead and not (is_behind or self.deliveries.get(self.waiting[-1])):
            raw_id = self.waiting.pop()
            self.active.append(raw_id)
            candidates.append(raw_id)
        jobs: list[Any] = []
        for place, raw_id in enumerate(candidates, start=int(is_started and not is_granted)):
            deliveries = self.deliveries[raw_id] = self.deliveries.get(raw_id, 0) + 1
            self.claims[raw_id] = claim_of(call.token, place, deliveries)
            jobs += (raw_id, self.records[raw_id], deliveries)
        claimed_ahead = candidates[at_once:]
        due_s = now_s + 2 * BEGIN_WITHIN_S
        if call.notes_ahead:
            self.ahead.update((self.claims[raw_id], (raw_id, due_s)) for raw_id in claimed_ahead)
        return facts, int(is_empty), jobs, int(is_granted), len(claimed_ahead)

    def _record(self, pending: PendingOutcome) -> int:
        raw_id, outcome = pending.raw_id, pending.outcome
        holder = self.claims.get(raw_id)
        if holder != pending.claim or raw_id not in self.active:
            return 2 if holder is None and self.records.get(raw_id) == outcome.record else 0
        self.recorded.append(outcome)
        self.active.remove(raw_id)
        del self.claims[raw_id]
        self.deliveries.pop(raw_id, None)
        self.records[raw_id] = outcome.record
        if outcome.status == "retrying":
            self.waiting.appendleft(raw_id)
        return 1

    def give_back(self, raw_id: bytes, claim: bytes) -> None:
        holder = self.claims.get(raw_id, b"")
        if holder != claim or raw_id not in self.active:
            return
        self.active.remove(raw_id)
        self.waiting.append(raw_id)
        if claim:
            del self.claims[raw_id]
            self.deliveries[raw_id] -= 1

    def return_overdue(self, now_s: float) -> list[bytes]:
        """Do what another worker does with jobs that have not begun in time; return their claims."""
        overdue = [(raw_id, claim) for claim, (raw_id, due_s) in self.ahead.items() if due_s < now_s]
        for raw_id, claim in reversed(overdue):
            del self.ahead[claim]
            self.give_back(raw_id, claim)
        return [claim for _, claim in overdue]

    def requeue(self, raw_id: bytes) -> None:
        """Do what a stall check does to a job without a sign of life."""
        self.active.remove(raw_id)
        self.claims.pop(raw_id, None)
        self.waiting.appendleft(raw_id)


class World:
    """One scheduler, and all that it deals with."""

    def __init__(self, scheduler_class: Any, *, concurrency: int) -> None:
        self.is_connected = False
        self.now_s = 0.0
        self.scheduler = scheduler_class(
            concurrency=concurrency,
            token_prefix=TOKEN_PREFIX,
            is_connected=lambda: self.is_connected,
            clock=lambda: self.now_s,
            begin_within_s=BEGIN_WITHIN_S,
        )
        self.concurrency = concurrency
        self.redis = FakeRedis()
        self.sent: list[tuple[ExchangeCall, Any]] = []  # calls in flight, with Redis's reply once executed
        self.is_fetching = False
        self.is_fetch_resting = False
        self.running: dict[bytes, bytes] = {}  # claim → id
        self.stopped: set[bytes] = set()  # claims whose handlers were stopped
        self.unsent_claims: set[bytes] = set()  # of jobs started early, while no call claims them
        self.refused_claims: set[bytes] = set()  # … ever
        self.refused_alone: set[bytes] = set()  # claims whose outcome was refused in a call of its own
        self.ahead: dict[bytes, tuple[bytes, float]] = {}  # claim → id, and by when it is to begin
        self.taken_by_thread: list[tuple[bytes, bytes]] = []  # … what a thread gives back now
        self.check_at_s: float | None = None  # when the scheduler wants to look for jobs that are late
        self.most_ahead = 0  # the largest limit so far
        self.unrecorded: dict[bytes, Any] = {}  # claim → its outcome
        self.returning: dict[bytes, bytes] = {}  # claim → id
        self.beat: tuple[dict[bytes, bytes], bytes] | None = None  # what a heartbeat under way beats for
        self.beat_lost: list[bytes] | None = None  # … and which of these claims Redis did not know
        self.awaited: Any = None
        self.sent_before_awaited: list[ExchangeCall] = []  # over the same connection: answered before it
        self.is_turn_due = False
        self.is_later_due = False  # a refused outcome is about to be sent again
        self.is_bursting = False
        self.is_paused = False
        self.is_draining = False
        self.is_done = False
        self.may_leave_strays = False  # it had one try at giving them back, and that failed
        self._outcomes_made = 0
        self._jobs_made = 0

    # The pump.

    def carry_out(self, due: Any) -> None:
        for action in due:
            getattr(self, f"_do_{type(action).__name__.lower()}")(action)

    def _do_decidesoon(self, _action: Any) -> None:
        self.is_turn_due = True

    def end_loop_turn(self) -> None:
        if self.is_turn_due:
            self.is_turn_due = False
            self.carry_out(self.scheduler.turn_ended())

    def _do_exchangecall(self, call: ExchangeCall) -> None:
        assert self.is_connected, "a call without a connection"
        assert len(self.sent) < 2, "one call too many is in flight"
        assert not (call.free and self.is_fetching), "a call asks for jobs beside a fetch"
        assert not (call.free and self.is_draining), "a draining worker asks for jobs"
        assert not (call.free and self.is_paused), "a paused worker asks for jobs"
        assert call.free or call.outcomes or call.fetched, "a call for nothing"
        is_open = not (self.is_draining or self.is_paused or self.is_bursting)
        assert is_open or not call.ahead, "a job is claimed ahead that is not to run here"
        is_first = all(claim.endswith(b":1") for claim in self.running)
        assert is_first or not call.ahead, "a job is claimed ahead behind one that was handed out before"
        for pending in call.outcomes:
            assert pending.claim not in self.unsent_claims, "an outcome is sent before its claim"
        if call.fetched is not None:
            assert call.fetched.is_started or not self.is_paused, "a paused worker claims a fetched job"
            self.unsent_claims.discard(call.fetched.claim)
        self.sent.append((call, None))

    def _do_start(self, action: Any) -> None:
        claims = [claim for _, _, _, claim in action.jobs if claim in self.ahead]
        later = [job[3] for job in self.scheduler.places.ahead.jobs()]
        held = [claim for claim in self.ahead if claim in claims or claim in later]
        assert held[: len(claims)] == claims, "jobs begin in another order than they were claimed in"
        for raw_id, _record, _deliveries, claim in action.jobs:
            self._start(raw_id, claim)

    def _do_startearly(self, action: Any) -> None:
        raw_id, _record, _deliveries, claim = action.job
        fetched = self.sent[-1][0].fetched
        assert fetched is not None
        assert fetched.claim == claim, "its claim was not sent before it started"
        self._start(raw_id, claim)

    def _start(self, raw_id: bytes, claim: bytes) -> None:
        assert claim not in {**self.running, **self.unrecorded, **self.returning}, "it is held already"
        rivals = {other for other, running_id in self.running.items() if running_id == raw_id}
        assert not rivals - self.stopped, "a job runs on beside its next attempt"
        if claim in self.ahead:
            _, begin_by_s = self.ahead.pop(claim)
            assert claim not in self.redis.ahead, "a job begins that Redis may give to another worker"
            assert self.now_s <= begin_by_s, "a job begins after its time"
            assert self.scheduler.claimed.holds(raw_id, claim), "a job begins that is known to be lost"
        self.running[claim] = raw_id

    def _do_notebegins(self, action: Any) -> None:
        assert self.is_connected, "nobody hears that jobs begin"
        claims = [claim for _, _, _, claim in action.jobs]
        for claim in claims:
            self.redis.ahead.pop(claim, None)

    def _do_checkahead(self, action: Any) -> None:
        assert self.check_at_s is None, "two timers for jobs claimed ahead"
        self.check_at_s = action.at_s

    def _do_giveback(self, action: Any) -> None:
        for raw_id, claim in action.claims:
            if self.ahead.pop(claim, None):
                self.returning[claim] = raw_id
        self._do_awaited(action)

    def _do_claimknown(self, _action: Any) -> None:
        pass

    def _do_stophandler(self, action: Any) -> None:
        self.unsent_claims.discard(action.claim)  # refused: its outcome, if there is one, will be lost
        if action.claim in self.running:
            holder = self.redis.claims.get(self.running[action.claim])
            assert holder != action.claim, "a healthy handler is stopped"
            self.stopped.add(action.claim)

    def _do_recorded(self, action: Any) -> None:
        for outcome in action.outcomes:
            ended = self.unrecorded.pop(outcome.job.claim)
            is_refusal = ended.message == REFUSED and isinstance(outcome.error, RedisRefused)
            assert outcome is ended or is_refusal, "another outcome of it was recorded"

    def _do_lost(self, action: Any) -> None:
        self._do_recorded(action)
        for outcome in action.outcomes:
            holder = self.redis.claims.get(outcome.job.raw_id, b"")
            is_stray = holder.startswith(TOKEN_PREFIX) and holder not in self.running
            assert not (outcome in self.redis.recorded and is_stray), "a recorded outcome is reported as lost"

    def _do_fetch(self, _action: Any) -> None:
        assert (self.is_fetching, self.is_fetch_resting) == (False, False), "a second fetch"
        assert not any(call.free for call, _ in self.sent), "a fetch starts while a call asks for jobs"
        is_waiting = not (self.is_bursting or self.is_draining or self.is_paused)
        assert is_waiting, "nobody waits for a further job"
        self.is_fetching = True

    def _do_awaited(self, action: Any) -> None:
        assert self.awaited is None, "two awaited actions at a time"
        self.awaited = action
        self.sent_before_awaited = [call for call, _ in self.sent]

    _do_stopfetch = _do_recover = _do_awaited

    def _do_retrylater(self, _action: Any) -> None:
        assert not self.is_later_due, "two timers for what was refused"
        self.is_later_due = True

    def _do_idle(self, _action: Any) -> None:
        assert (self.held, self.sent) == (0, []), "it is not idle"
        assert self.is_draining or not self.is_paused, "a paused worker says that the queue is empty"

    def _do_done(self, _action: Any) -> None:
        assert self.is_draining
        assert (self.held, self.sent, self.is_fetching) == (0, [], False), "it is not done"
        self.is_done = True

    # What must hold after every event.

    @property
    def held(self) -> int:
        """How many places are taken."""
        return len(self.running) + len(self.ahead) + len(self.unrecorded) + len(self.returning)

    def _forget_lost(self) -> None:
        """Forget jobs claimed ahead that the scheduler has dropped: they were lost before they began."""
        kept = {
            *(job[3] for job in self.scheduler.places.ahead.jobs()),
            *(claim for _, claim in self.taken_by_thread),
        }
        for claim, (raw_id, _) in list(self.ahead.items()):
            if claim not in kept and not self.scheduler.is_pending(claim):
                assert not self.scheduler.claimed.holds(raw_id, claim), "a job is forgotten"
                del self.ahead[claim]

    def check(self) -> None:
        if self.is_done:
            return
        self._forget_lost()
        requested = 0
        for call, _ in self.sent:
            to_claim = call.fetched is not None and not call.fetched.is_started
            requested += max(0, call.free + call.ahead + to_claim - len(call.outcomes))
        assert self.scheduler.places.taken == self.held, "a place leaks, or is given twice"
        is_open = not (self.is_draining or self.is_paused or self.is_bursting)
        is_taking = self.scheduler.is_ready and is_open and not self.scheduler.places.is_full()
        assert self.scheduler.takes_jobs() is is_taking, "it says that it takes jobs, or that it does not"
        sent_again = len(self.refused_claims & self.unrecorded.keys())
        held = self.held - sent_again + requested + self.is_fetching
        assert held <= self.concurrency + self.most_ahead, "more than there are places"
        assert len(self.running) <= self.concurrency, "more handlers run than there are places"
        for claim, (raw_id, _) in self.ahead.items():
            is_ours = self.redis.claims.get(raw_id) == claim
            assert not is_ours or self.scheduler.claimed[raw_id] == claim, "nobody beats for a job"
        for claim, raw_id in self.running.items():
            is_ours = self.redis.claims.get(raw_id) == claim
            assert not is_ours or self.scheduler.claimed[raw_id] == claim, "nobody beats for a job"
        if self.awaited is not None or self.is_turn_due or not self.is_connected:
            return
        assert not (self.is_paused and self.is_fetching), "a paused worker fetches on"
        in_flight = {pending.claim for call, _ in self.sent for pending in call.outcomes}
        left = self.unrecorded.keys() - in_flight
        if self.is_later_due:  # what was refused alone may wait for its next try, and nothing else
            left -= self.refused_alone
        if left or (self.redis.waiting and self._may_take()):
            assert self.sent or self.is_fetching, "nothing is in flight, and there is something to do"

    def _may_take(self) -> bool:
        is_open = not (self.is_draining or self.is_paused or self.is_bursting or self.is_fetch_resting)
        return is_open and self.held < self.concurrency

    # What happens.

    def add_job(self) -> None:
        self._jobs_made += 1
        self.redis.add(b"%d" % self._jobs_made)

    def begin(self) -> None:
        self.carry_out(self.scheduler.decide())

    def execute(self) -> bool:
        """Let Redis execute the next call; return whether there was one, and Redis took its content."""
        for at, (call, reply) in enumerate(self.sent):
            if reply is None:
                if self._refusal_of(call) is not None:
                    return False
                self.sent[at] = (call, self.redis.exchange(call, self.now_s))
                return True
        return False

    def _refusal_of(self, call: ExchangeCall) -> Failure | None:
        outcomes = [pending.outcome for pending in call.outcomes]
        if any(outcome.message == REFUSED for outcome in outcomes):
            return Failure.CONTENT_REFUSED
        is_refused = self.redis.refuses_retries and any(each.status == "retrying" for each in outcomes)
        return Failure.REFUSED if is_refused else None

    def end_later(self) -> None:
        """Let what was refused be sent again."""
        if self.is_later_due:
            self.is_later_due = False
            self.carry_out(self.scheduler.retry_lonely())

    def reply(self) -> None:
        if not self.sent:
            return
        if self.sent[0][1] is None and not self.execute():
            refusal = self._refusal_of(self.sent[0][0])
            assert refusal is not None
            self.refuse(refusal)
            if refusal is Failure.CONTENT_REFUSED:
                self.break_connection()  # the server hangs up
            return
        call, reply = self.sent.pop(0)
        _, _, jobs, is_granted, ahead = reply
        reply = actions.ExchangeReply(*reply)
        first_place = int(call.fetched is not None and call.fetched.is_started and not is_granted)
        for at in range(len(jobs) // 3 - ahead, len(jobs) // 3):
            raw_id, _, deliveries = jobs[3 * at : 3 * at + 3]
            self.ahead[claim_of(call.token, first_place + at, deliveries)] = (raw_id, call.begin_by_s)
        self.carry_out(self.scheduler.replied(call, reply))
        early = call.fetched
        if early is not None and early.is_started and not reply[3]:
            assert early.claim in self.stopped or early.claim not in self.running, "a refused job runs on"

    def refuse(self, failure: Failure) -> None:
        """Let Redis answer the next call with an error."""
        if self.sent and self.sent[0][1] is None:
            call, _ = self.sent.pop(0)
            self._fail(call, failure)

    def break_connection(self) -> None:
        self.is_connected = False
        sent, self.sent = self.sent, []
        for call, reply in sent:
            self._fail(call, Failure.REPLY_LOST, is_executed=reply is not None)

    def _fail(self, call: ExchangeCall, failure: Failure, *, is_executed: bool = False) -> None:
        if call.fetched is not None and call.fetched.is_started and not is_executed:
            self.unsent_claims.add(call.fetched.claim)
            self.refused_claims.add(call.fetched.claim)
        if failure is Failure.REFUSED and len(call.outcomes) == 1:
            self.refused_alone.add(call.outcomes[0].claim)
        is_unknown = failure is Failure.REPLY_LOST
        error = RedisUnavailable("the connection ended") if is_unknown else RedisRefused("ERR no")
        self.carry_out(self.scheduler.failed(call, failure, error))

    def end_handler(self, n: int, *, is_retried: bool, is_refused: bool = False) -> None:
        claims = [claim for claim in self.running if claim not in self.stopped]
        if not claims:
            return
        claim = claims[n % len(claims)]
        raw_id = self.running.pop(claim)
        self._outcomes_made += 1
        record = b"outcome %d" % self._outcomes_made
        outcome = made_outcome(FakeJob(raw_id, claim), record, is_retried=is_retried, is_refused=is_refused)
        self.unrecorded[claim] = outcome
        self.carry_out(self.scheduler.outcome_ready(raw_id, claim, outcome))

    def end_stopped_handlers(self) -> None:
        for claim in [claim for claim in self.running if claim in self.stopped]:
            self._give_up(claim)
        self.stopped.clear()

    def give_up(self, n: int) -> None:
        """A cancelled job's handler ends, or the worker gives up on it."""
        claims = [claim for claim in self.running if claim not in self.stopped]
        if claims:
            self._give_up(claims[n % len(claims)])

    def _give_up(self, claim: bytes) -> None:
        raw_id = self.running.pop(claim)
        if self.scheduler.claimed.get(raw_id) == claim:
            self.returning[claim] = raw_id
        else:
            assert self.redis.claims.get(raw_id) != claim, "a job is not given back"
        self.carry_out(self.scheduler.give_back([(raw_id, claim)]))

    def fetch_brings_job(self, *, has_record: bool) -> None:
        if self.is_fetching and self.redis.waiting:
            raw_id = self.redis.waiting.pop()
            self.redis.active.append(raw_id)
            self.is_fetching = False
            is_first = raw_id not in self.redis.claims and not self.redis.deliveries.get(raw_id)
            record = self.redis.records[raw_id] if has_record and is_first else b""
            self.carry_out(self.scheduler.fetched(raw_id, record))

    def fetch_ends(self) -> None:
        if (self.is_fetching and not self.redis.waiting) or self.is_fetch_resting:
            self.is_fetching = self.is_fetch_resting = False
            self.carry_out(self.scheduler.fetch_ended())

    def fetch_fails(self) -> None:
        if self.is_fetching:
            self.is_fetching = False
            self.is_fetch_resting = True
            self.carry_out(self.scheduler.fetch_rests())

    def end_awaited(self, *, is_executed: bool, is_known: bool) -> None:
        """Let the awaited action under way end, well or not."""
        while self.sent and self.sent[0][0] in self.sent_before_awaited:
            self.reply()
        action, self.awaited = self.awaited, None
        if not (is_executed and is_known) and self.is_draining:
            self.may_leave_strays = True
        if isinstance(action, Recover):
            self._end_recover(action, is_done=is_executed and is_known)
        elif isinstance(action, GiveBack):
            self._end_give_back(action, is_executed=is_executed, is_known=is_executed and is_known)
        elif isinstance(action, actions.StopFetch):
            self.fetch_brings_job(has_record=is_known)
            self.fetch_ends()
            self.carry_out(self.scheduler.fetch_stopped())

    def _end_recover(self, action: Recover, *, is_done: bool) -> None:
        if not is_done:
            self.carry_out(self.scheduler.recovery_failed())
            return
        self.is_connected = True
        found = [pair for pair in self.redis.claims.items() if token_of(pair[1]) in action.tokens]
        record = self.redis.records.get(action.record_of, b"") if action.record_of else b""
        self.carry_out(self.scheduler.recovered(action, found, record))

    def _end_give_back(self, action: GiveBack, *, is_executed: bool, is_known: bool) -> None:
        if is_executed:
            if action.unclaimed:
                self.redis.give_back(action.unclaimed, b"")
            for raw_id, claim in reversed([*action.claims, *action.strays]):
                self.redis.give_back(raw_id, claim)
        if not is_known:
            self.carry_out(self.scheduler.give_back_failed(action))
            return
        for _, claim in action.claims:
            del self.returning[claim]
        self.carry_out(self.scheduler.given_back(action))

    def beat_goes_on(self) -> None:
        """A heartbeat copies what is held; Redis looks for these claims; the worker hears which are lost."""
        if self.beat is None:
            self.beat = self.scheduler.claimed.snapshot()
        elif self.beat_lost is None:
            held, early = self.beat
            self.beat_lost = [
                claim
                for raw_id, claim in held.items()
                if self.redis.claims.get(raw_id) != claim and claim != early
            ]
        else:
            running = {**self.running, **{claim: raw_id for claim, (raw_id, _) in self.ahead.items()}}
            lost = [(running[claim], claim) for claim in self.beat_lost if claim in running]
            self.beat = self.beat_lost = None
            self.carry_out(self.scheduler.claims_lost(lost))
            for raw_id, claim in lost:
                assert claim in self.stopped or claim not in self.running, "a lost job runs on"
                assert self.scheduler.claimed.get(raw_id) != claim, "somebody beats for a lost job"

    def time_passes(self, n: int) -> None:
        self.now_s += n * BEGIN_WITHIN_S / 8
        if self.check_at_s is not None and self.check_at_s < self.now_s:
            self.check_at_s = None
            self.carry_out(self.scheduler.check_ahead())

    def limit_ahead(self, limit: int) -> None:
        """Attempts are shorter, or longer, than they were."""
        self.scheduler.places.ahead_limit = limit
        self.most_ahead = max(self.most_ahead, limit)

    def workers_come_or_go(self, *, are_others: bool) -> None:
        self.scheduler.places.notes_ahead = are_others

    def thread_gives_back(self, *, is_done: bool) -> None:
        """The thread takes jobs that are late; what it took the last time it has given back, or could not."""
        claims, self.taken_by_thread = self.taken_by_thread, []
        if claims:
            for raw_id, claim in reversed(claims) if is_done else ():
                self.redis.give_back(raw_id, claim)
            for _, claim in claims if is_done else ():
                del self.ahead[claim]
            self.carry_out(self.scheduler.ahead_taken(claims, is_done=is_done))
            return
        newest_first = self.scheduler.places.ahead.take_overdue(self.now_s)
        self.taken_by_thread = [(raw_id, claim) for raw_id, _, _, claim in reversed(newest_first)]

    def others_take_overdue(self) -> None:
        for claim in self.redis.return_overdue(self.now_s):
            assert claim not in self.running, "a job that runs is given back"

    def stall(self, n: int) -> None:
        """A stall check requeues a job that is active."""
        if self.redis.active:
            self.redis.requeue(self.redis.active[n % len(self.redis.active)])

    def replace(self, n: int) -> None:
        """Somebody removes a job that is active, and saves another one under its id."""
        if self.redis.active:
            raw_id = self.redis.active.pop(n % len(self.redis.active))
            self.redis.claims.pop(raw_id, None)
            self.redis.deliveries.pop(raw_id, None)
            # Nothing of the recorded outcome is left for a later call to find.
            self.redis.recorded = [outcome for outcome in self.redis.recorded if outcome.job.raw_id != raw_id]
            self.redis.add(raw_id)

    def steal(self) -> None:
        """Another worker takes the next job."""
        if self.redis.waiting:
            raw_id = self.redis.waiting.pop()
            self.redis.active.append(raw_id)
            self.redis.claims[raw_id] = b"another.0:1"

    def pause(self, *, is_over: bool) -> None:
        self.is_paused = not is_over
        self.carry_out(self.scheduler.pause(is_over=is_over))

    def drain(self) -> None:
        self.is_draining = True
        self.carry_out(self.scheduler.drain())

    def burst(self) -> None:
        self.is_bursting = True
        self.carry_out(self.scheduler.burst())

    def look(self) -> None:
        self.carry_out(self.scheduler.look())

    def finish(self) -> None:
        """In fair weather everything ends: handlers, calls, awaited actions; and nothing is left claimed."""
        self.redis.is_long_active = self.redis.are_records_long = self.redis.refuses_retries = False
        self.drain()
        for _ in range(1000):
            if self.is_done:
                break
            self.end_loop_turn()
            self.end_stopped_handlers()
            self.end_handler(0, is_retried=False)
            self.reply()
            self.end_later()
            self.thread_gives_back(is_done=True)
            self.end_awaited(is_executed=True, is_known=True)
            if self.awaited is None and not self.sent:
                self.fetch_ends()
            self.check()
        assert self.is_done, "it does not end"
        ours = {raw_id for raw_id, claim in self.redis.claims.items() if claim.startswith(TOKEN_PREFIX)}
        is_clean = not ours & set(self.redis.active)
        assert is_clean or self.may_leave_strays, "a job is claimed, and runs nowhere"
