"""Repairs after failures: jobs to give back, and those that calls without a reply may have claimed."""

from collections.abc import Sequence

from beeq.worker.scheduling.actions import ExchangeCall, Failure, GiveBack, Recover
from beeq.worker.scheduling.claims import HeldClaims


class Repairs:
    """The repairs of one scheduler; decisions only. A job is named by id and claim."""

    def __init__(self) -> None:
        #: Jobs to give back, which hold places; the first runs first.
        self.giving_back: list[tuple[bytes, bytes]] = []
        #: Jobs to give back that run nowhere, and hold no place.
        self.strays: list[tuple[bytes, bytes]] = []
        self._unanswered_tokens: list[bytes] = []  # of calls that may have been executed
        self._needs_rest = self._needs_script = False

    def has_unknown(self) -> bool:
        """Return whether jobs may be claimed with this worker's tokens that it does not hold."""
        return bool(self._unanswered_tokens or self.strays)

    def is_giving_back(self, claim: bytes) -> bool:
        """Return whether the job with this claim waits to be given back."""
        return any(claim == each for _, each in self.giving_back)

    def call_failed(self, call: ExchangeCall, failure: Failure, *, needs_rest: bool) -> None:
        """Note the recovery that must come before the next call."""
        self._needs_script = self._needs_script or failure is Failure.SCRIPT_MISSING
        self._needs_rest = self._needs_rest or needs_rest
        if failure is Failure.REPLY_LOST:
            self._unanswered_tokens.append(call.token)

    def recover(self, record_of: bytes) -> Recover:
        """Return the recovery that is due."""
        needs_rest, self._needs_rest = self._needs_rest, False
        return Recover(needs_rest, self._needs_script, tuple(self._unanswered_tokens), record_of)

    def recovered(self, action: Recover, found: Sequence[tuple[bytes, bytes]], held: HeldClaims) -> None:
        """Take the jobs that ``action`` has found: those not held here go back."""
        self._needs_script = self._needs_script and not action.needs_script
        self._unanswered_tokens = [token for token in self._unanswered_tokens if token not in action.tokens]
        self.strays += [(raw_id, claim) for raw_id, claim in found if not held.holds(raw_id, claim)]

    def recovery_failed(self) -> None:
        """Wait before the next recovery."""
        self._needs_rest = True

    def give_back(self, unclaimed: bytes) -> GiveBack | None:
        """Return the GiveBack that is due, or None; ``unclaimed``: see ``GiveBack``."""
        if not (self.giving_back or self.strays or unclaimed):
            return None
        action = GiveBack(self.giving_back, self.strays, unclaimed)
        self.giving_back, self.strays = [], []
        return action

    def give_back_failed(self, action: GiveBack) -> None:
        """Repeat it: it is unknown whether it was carried out."""
        self.giving_back = action.claims + self.giving_back
        self.strays = action.strays + self.strays

    def leave(self) -> None:
        """Drop the open repairs: a stall check finds these jobs."""
        self._unanswered_tokens.clear()
        self.strays.clear()
