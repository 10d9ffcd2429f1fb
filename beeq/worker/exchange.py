"""Packs the calls of ``lua/exchange.lua`` for one queue."""

from typing import Any

from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.settings import Settings
from beeq.worker.actions import ExchangeCall


class ExchangePacker:
    """Packs calls; what is the same in each of them is packed once."""

    def __init__(self, keys: Keys, settings: Settings) -> None:
        self._prefix = scripts.exchange.prefix(
            keys,
            events=keys.events if settings.send_events else "",
            earlier_delayed=keys.earlier_delayed,
            keep_ms=settings.result_ttl,
            drop_succeeded="1" if settings.remove_on_success else "",
            drop_failed="1" if settings.remove_on_failure else "",
            outbox_limit=settings.outbox_limit,
        )

    def packed(self, call: ExchangeCall) -> bytes:
        """Return the command."""
        arguments: list[Any] = [call.token, call.free, b"", b""]
        if call.fetched is not None:
            arguments[2:] = call.fetched.raw_id, b"1" if call.fetched.is_started else b""
        for pending in call.outcomes:
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
