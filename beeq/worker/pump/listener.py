"""The pump's interface to the worker."""

import asyncio
from typing import Protocol

from beeq.protocol.outcome import Outcome
from beeq.worker.scheduling.claims import ClaimedJob


class PumpListener(Protocol):
    """Notified of a pump's jobs; ``Worker`` is one."""

    def start_job(self, claimed_job: ClaimedJob, claim_known: asyncio.Future[None] | None) -> None:
        """Start the job; it must lead to one ``outcome_ready`` or ``give_back``, unless this raises.

        If Redis has not granted its claim yet, there is a future, which is done once that is known.
        """

    def stop_job(self, claim: bytes) -> None:
        """Stop the job that runs by this claim, if one does: Redis has not granted it, or it is lost."""

    def recorded(self, outcomes: list[Outcome]) -> None:
        """Redis has recorded these outcomes."""

    def lost(self, outcomes: list[Outcome]) -> None:
        """These jobs had another owner by then, and Redis has dropped the outcomes."""

    def claimed_ahead(self) -> None:
        """A call has claimed jobs ahead; it is called before any job of that call starts."""

    def found_empty(self) -> None:
        """The queue was found empty while nothing runs here."""
