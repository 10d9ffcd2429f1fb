"""Claims: what ``lua/exchange.lua`` writes down for a job that it hands out, and what comes with one."""

from __future__ import annotations

import asyncio

#: A claimed job: its id as Redis has it, its record, how often it was handed out, the claim; and, if Redis
#: has not granted that yet, what is done once it is known.
Claimed = tuple[bytes, bytes, int, bytes, asyncio.Future[None] | None]


def claim_of(token: bytes, place: int, deliveries: int) -> bytes:
    """Return the claim of the job that has this place among those of one call."""
    return b"%b.%d:%d" % (token, place, deliveries)


def token_of(claim: bytes) -> bytes:
    """Return the token of the call that claimed; empty if nobody has the job any more."""
    return claim.rpartition(b":")[0].rpartition(b".")[0]
