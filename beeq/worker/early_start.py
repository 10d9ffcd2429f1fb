"""A job between the blocking move that has put it into ``active`` and the call that claims it.

An idle worker does not wait for that call's reply: the move brings the record along, the call is sent, and
the handler begins. The reply then confirms what was begun, or says that the job was not to be had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from beeq.worker.claims import claim_of

#: Handed out for the first time: only then is it known beforehand what the claim will be.
_FIRST_DELIVERY = 1


class Adoption:
    """One such job.

    Args:
        raw_id: its id as Redis has it.
        token: of the call that claims it, however often that has to be made: the claim stays the same.
    """

    __slots__ = ("claim", "claim_known", "is_begun", "raw_id", "record", "token")

    def __init__(self, raw_id: bytes, token: bytes) -> None:
        self.raw_id = raw_id
        self.token = token
        #: What a call that grants it claims it with.
        self.claim = claim_of(token, 0, _FIRST_DELIVERY)
        #: Whether its handler began before the claim was granted, and with which record.
        self.is_begun = False
        self.record = b""
        #: Done when it is known whether the claim was granted; made when the handler begins.
        self.claim_known: asyncio.Future[None] | None = None

    def begin(self, record: bytes, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None]:
        """Note that the handler begins; return ``claim_known``."""
        self.is_begun = True
        self.record = record
        self.claim_known = loop.create_future()
        return self.claim_known

    def is_granted(self, jobs: Sequence[Any]) -> bool:
        """Return whether the jobs of a reply begin with this one, claimed as expected."""
        return bool(jobs) and jobs[0] == self.raw_id and jobs[2] == _FIRST_DELIVERY

    def end(self) -> None:
        """Let those go on who waited for ``claim_known``."""
        if self.claim_known is not None and not self.claim_known.done():
            self.claim_known.set_result(None)
