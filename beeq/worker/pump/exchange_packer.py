"""Packs the calls of ``lua/exchange.lua`` for one queue."""

from collections.abc import Sequence

from beeq.errors import BeeqError
from beeq.process import now_ms, process_name
from beeq.protocol.attempts import encode_attempt
from beeq.protocol.keys import Keys
from beeq.protocol.options import created_ms_of
from beeq.protocol.outcome import Outcome
from beeq.redis import scripts
from beeq.settings import Keep, Settings
from beeq.worker.scheduling.actions import MAX_BATCH_BYTES, ExchangeCall
from beeq.worker.scheduling.ahead import BEGINS_WITHIN, NOTED_WITHIN_MS

#: One call in so many counts the jobs that run in the whole fleet; the others use its result.
_COUNT_EVERY = 64


class ExchangePacker:
    """Packs calls; their constant parts are packed once."""

    def __init__(self, keys: Keys, settings: Settings) -> None:
        drop_succeeded = _drop(settings.keep_succeeded, is_at_once=settings.remove_on_success)
        drop_failed = _drop(settings.keep_failed, is_at_once=settings.remove_on_failure)
        all_keys, few_keys = (
            scripts.exchange.prefix(
                keys,
                last_key,
                events=keys.events if settings.send_events else "",
                earlier_delayed=keys.earlier_delayed,
                keep_ms=settings.result_ttl,
                drop_succeeded=drop_succeeded,
                drop_failed=drop_failed,
                outbox_limit=settings.outbox_limit,
                max_bytes=MAX_BATCH_BYTES,
            )
            for last_key in ("", "ahead")
        )
        self._prefix = all_keys
        #: The prefix of a call without failures.
        self._success_prefix = (
            all_keys if drop_succeeded or drop_failed or settings.outbox_limit else few_keys
        )
        self._ahead_ms = b"%d" % (BEGINS_WITHIN * settings.claim_ahead_ms + NOTED_WITHIN_MS)
        self._drops_succeeded = settings.remove_on_success
        drops = {"succeeded": settings.remove_on_success, "failed": settings.remove_on_failure}
        #: Ends of jobs whose record stays, and whose result is not kept.
        self._without_result = frozenset(
            status for status, is_dropped in drops.items() if not (settings.keep_results or is_dropped)
        )
        self._calls_until_count = 0
        self._counted: Sequence[bytes] = ()  # how many jobs run, and whether some run on Node peers

    def counted(self, counted: Sequence[int]) -> None:
        """Take a reply's facts on running jobs: how many there are, and whether some run on Node peers."""
        self._counted = [b"%d" % fact for fact in counted]
        self._calls_until_count = _COUNT_EVERY

    @staticmethod
    def note_attempt(outcome: Outcome) -> None:
        """Add the note on a failed attempt to its outcome."""
        job, outcome.ended_ms = outcome.job, now_ms()
        outcome.attempt = encode_attempt(
            created_ms=created_ms_of(job.options),
            started_ms=job.started_ms,
            ended_ms=outcome.ended_ms,
            worker=process_name(),
            error=outcome.error if outcome.error is not None else BeeqError("unknown"),
        )

    def packed(self, call: ExchangeCall) -> bytes:
        """Return the command."""
        self._calls_until_count -= 1
        counted = self._counted if self._calls_until_count > 0 else (b"", b"")
        ahead_ms = self._ahead_ms if call.notes_ahead else b""
        arguments = [*counted, call.token, b"%d" % call.free, b"%d" % call.ahead, ahead_ms, b"", b""]
        if call.fetched is not None:
            arguments[6:] = call.fetched.raw_id, b"1" if call.fetched.is_started else b""
        prefix, drops, without_result = self._success_prefix, self._drops_succeeded, self._without_result
        for pending in call.outcomes:
            outcome = pending.outcome
            status, delay, keep = b"succeeded", b"0", outcome.keep
            if outcome.status != "succeeded":
                prefix = self._prefix
                if not (outcome.attempt or outcome.is_postponed):  # a success that Redis refused
                    self.note_attempt(outcome)
                status, delay = outcome.status.encode(), b"%d:%b" % (outcome.delay_ms, outcome.attempt)
            elif drops and not keep:
                # Without a record, nothing else would show later that the job succeeded.
                keep = b"%d:snull" % created_ms_of(outcome.job.options)
            if without_result and outcome.status in without_result:
                keep = b""
            arguments += pending.raw_id, pending.claim, status, outcome.record, outcome.message, delay, keep
        return prefix.pack(arguments)


def _drop(keep: Keep | None, *, is_at_once: bool) -> str:
    """Return the script's argument for dropping ended jobs: ``1``, ``later`` or never."""
    if is_at_once:
        return "1"
    return "" if keep is None or keep.is_all else "later"
