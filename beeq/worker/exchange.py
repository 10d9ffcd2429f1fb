"""The calls of ``lua/exchange.lua`` for one queue: what is sent with each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from beeq.redis.resp import CommandPrefix
from beeq.redis.scripts import EXCHANGE

if TYPE_CHECKING:
    from beeq.protocol.keys import Keys
    from beeq.protocol.outcome import Outcome
    from beeq.settings import Settings
    from beeq.worker.early_start import Adoption

#: Jobs asked for, and outcomes told, in one call …
MAX_BATCH = 500
#: … with not much more than this many bytes of outcomes.
MAX_BATCH_BYTES = 1_000_000
#: Each outcome looks for its id in ``active``, which is as long as many jobs run. A call makes so many steps
#: at most, some milliseconds' worth …
_MAX_STEPS = 500_000
#: … but always carries so many outcomes.
_FEWEST = 25


class PendingOutcome:
    """A outcome on its way to Redis."""

    __slots__ = ("claim", "outcome", "raw_id")

    def __init__(self, raw_id: bytes, claim: bytes, outcome: Outcome) -> None:
        self.raw_id = raw_id
        self.claim = claim
        self.outcome = outcome


@dataclass(slots=True)
class Turn:
    """One call."""

    #: What the jobs it hands out are claimed with.
    token: bytes
    #: How many jobs it asks for.
    free: int
    #: What a blocking move has put into ``active``.
    adopted: Adoption | None
    outcomes: list[PendingOutcome]
    #: Free places that no other call may count on meanwhile.
    promised: int


class Exchange:
    """Packs the calls."""

    def __init__(self, keys: Keys, settings: Settings) -> None:
        script_keys = (
            keys.waiting,
            keys.active,
            keys.stalling,
            keys.jobs,
            keys.succeeded,
            keys.failed,
            keys.delayed,
            keys.claims,
            keys.results,
            keys.expiries,
            keys.outbox,
        )
        self._prefix = CommandPrefix(
            "EVALSHA",
            EXCHANGE.sha,
            len(script_keys),
            *script_keys,
            keys.events if settings.send_events else "",
            keys.earlier_delayed,
            settings.result_ttl,
            "1" if settings.remove_on_success else "",
            "1" if settings.remove_on_failure else "",
            settings.outbox_limit,
        )

    def packed(self, turn: Turn) -> bytes:
        """Return the command."""
        arguments: list[Any] = [turn.token, turn.free, b"", b""]
        if turn.adopted is not None:
            arguments[2:] = turn.adopted.raw_id, b"1" if turn.adopted.is_begun else b""
        for pending in turn.outcomes:
            outcome = pending.outcome
            arguments += (
                pending.raw_id,
                pending.claim,
                outcome.status,
                outcome.record,
                outcome.message,
                outcome.delay_ms,
                outcome.keep,
            )
        return self._prefix.pack(arguments)


def first_of(outcomes: list[PendingOutcome], busy: int) -> int:
    """Return how many outcomes one call may carry while ``busy`` jobs run; one large record goes alone."""
    count = size_bytes = 0
    most = max(_FEWEST, min(MAX_BATCH, _MAX_STEPS // max(1, busy)))
    for outcome in outcomes[:most]:
        size_bytes += len(outcome.outcome.record)
        if count and size_bytes > MAX_BATCH_BYTES:
            break
        count += 1
    return count
