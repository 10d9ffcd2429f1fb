"""Diagnoses one queue and its Redis, and repairs what it can."""

import asyncio
from collections.abc import Iterable
from typing import Any

from beeq.client.context import QueueContext
from beeq.client.session import Session
from beeq.errors import RedisRefused
from beeq.operations.diagnosis.findings import Finding, Move, plural
from beeq.operations.diagnosis.places import OnLooked, PlaceCheck, ids_at_once
from beeq.operations.diagnosis.quick import check_overdue
from beeq.operations.diagnosis.server import check_server, set_good_policy
from beeq.operations.diagnosis.workers import check_workers
from beeq.operations.live_workers import live_workers
from beeq.redis import scripts

#: The type of each suffix's key, and a command that only this type takes.
KEY_TYPES = {
    "id": "string",
    "jobs": "hash",
    "stallBlock": "string",
    "stalling": "set",
    "waiting": "list",
    "active": "list",
    "succeeded": "set",
    "failed": "set",
    "delayed": "sorted set",
    "beeq:claims": "hash",
    "beeq:ahead": "sorted set",
    "beeq:results": "hash",
    "beeq:evenResults": "hash",
    "beeq:oddResults": "hash",
    "beeq:cancelled": "sorted set",
    "beeq:outbox": "stream",
    "beeq:scan": "string",
    "beeq:mirror": "string",
    "beeq:workers": "sorted set",
    "beeq:requeued": "set",
    "beeq:swept": "hash",
    "beeq:attempts": "hash",
    "beeq:paused": "string",
    "beeq:hidden": "list",
    "beeq:succeededAt": "sorted set",
    "beeq:failedAt": "sorted set",
    "beeq:seenSuccess": "sorted set",
    "beeq:seenFailure": "sorted set",
    "beeq:retention": "string",
    "beeq:minutes": "hash",
    "beeq:hours": "hash",
}
_TAKES = {
    "string": "GET", "hash": "HLEN", "set": "SCARD", "list": "LLEN", "sorted set": "ZCARD", "stream": "XLEN",
}  # fmt: skip
#: Hashes that have one field a job.
_SIDE_HASHES = ("beeq:claims", "beeq:results", "beeq:attempts")
_DRAWN = 1000
#: Living workers drop leftovers by themselves; fewer than these are not reported then.
_FEW = 100
_SWEEPS, _SWEEP_S = 10_000, 60.0
_CURSORS_LIFETIME_MS = 3_600_000


class Doctor:
    """One queue's diagnosis and repair."""

    def __init__(self, context: QueueContext, session: Session) -> None:
        self._context = context
        self._session = session
        self._pipeline = context.pipeline
        self._keys = context.keys

    async def diagnose_server(self) -> list[Finding]:
        """Return what is wrong with Redis. Raises RedisUnavailable, QueueClosed."""
        await self._session.ensure()
        return await check_server(self._pipeline, self._keys, now_ms=self._context.now_ms)

    async def diagnose(self, on_looked: OnLooked | None, *, most_ids: int) -> list[Finding]:
        """Return what is wrong with the queue. Raises RedisUnavailable, QueueClosed.

        Of each list and set, at most ``most_ids`` are looked at.
        """
        await self._session.ensure()
        found = await self._wrong_types()
        if not found:
            found += check_workers(await live_workers(self._pipeline, self._keys))
            try:
                found += await check_overdue(self._pipeline, self._keys)
                places = PlaceCheck(self._pipeline, self._keys, on_looked or _nobody, most_ids)
                found += await places.findings()
                found += await self._leftovers()
            except RedisRefused as refused:
                found.append(Finding("not-looked-at", f"not all could be looked at: {refused}"))
        return found

    async def repair(self, findings: Iterable[Finding]) -> int:
        """Repair what these name, if it has not changed; return how many ids and settings were repaired.

        Raises RedisError, QueueClosed.
        """
        await self._session.ensure()
        repaired = 0
        for finding in findings:
            if finding.moves:
                repaired += await self._repair_places(finding.moves)
            elif finding.kind == "leftovers":
                repaired += await self._sweep()
            elif finding.kind == "eviction-policy":
                repaired += await set_good_policy(self._pipeline)
        return repaired

    async def _wrong_types(self) -> list[Finding]:
        found = []
        kinds = {self._keys.to_key(suffix): kind for suffix, kind in KEY_TYPES.items()}
        for key, kind in (kinds | {self._keys.queues: "sorted set"}).items():
            try:
                await self._pipeline.call(_TAKES[kind], key, repeatable=True)
            except RedisRefused as refused:
                if refused.code == "WRONGTYPE":
                    text = f"the key {key} is not a {kind}: rename it or delete it"
                    found.append(Finding("wrong-type", text))
        if found:
            text = "the jobs were not looked at, because of a key of the wrong type"
            found.append(Finding("not-looked-at", text, is_problem=False))
        return found

    async def _leftovers(self) -> list[Finding]:
        workers = await self._pipeline.call("ZCARD", self._keys.workers, repeatable=True)
        left: dict[str, tuple[int, int]] = {}
        for suffix in _SIDE_HASHES:
            key = self._keys.to_key(suffix)
            drawn = await self._pipeline.call("HRANDFIELD", key, _DRAWN, repeatable=True)
            if not drawn:
                continue
            places = await scripts.find_places(
                self._pipeline, self._keys, with_lists="", ids=((each,) for each in drawn)
            )
            count = sum(seen[:1] == b"0" for seen in places)
            is_worth_it = 10 * count >= len(drawn) if len(drawn) == _DRAWN else count > 0
            if is_worth_it and (not workers or count > _FEW):
                left[suffix] = count, len(drawn)
        if not left:
            return []
        where = ", ".join(
            f"{count} of {seen} looked at in {suffix}" for suffix, (count, seen) in left.items()
        )
        count = sum(each for each, _ in left.values())
        text = f"{plural(count, 'entry has', 'entries have')} no job any more: {where}"
        return [Finding("leftovers", text, "drops them", count)]

    async def _repair_places(self, moves: tuple[Move, ...]) -> int:
        entries = [
            await self._pipeline.call("LLEN", key, repeatable=True)
            for key in (self._keys.waiting, self._keys.hidden, self._keys.active)
        ]
        at_once = ids_at_once(sum(entries))
        by_place: dict[str, list[Move]] = {}
        for move in moves:
            by_place.setdefault(move.wanted, []).append(move)
        repaired = 0
        for wanted, group in by_place.items():
            for start in range(0, len(group), at_once):
                facts = await scripts.repair_jobs(
                    self._pipeline,
                    self._keys,
                    wanted=wanted,
                    jobs=((move.job_id, move.seen) for move in group[start : start + at_once]),
                )
                repaired += sum(facts)
        return repaired

    async def _sweep(self) -> int:
        """Drop fields without a job, for at most a minute; return how many."""
        now_s = asyncio.get_running_loop().time
        before, ends_s = await self._side_fields(), now_s() + _SWEEP_S
        for _ in range(_SWEEPS):
            has_more = await scripts.sweep(
                self._pipeline, self._keys, count=_DRAWN, lifetime_ms=_CURSORS_LIFETIME_MS
            )
            if not has_more or now_s() > ends_s:
                break
        return max(0, before - await self._side_fields())

    async def _side_fields(self) -> int:
        keys = map(self._keys.to_key, _SIDE_HASHES)
        counts: list[Any] = await asyncio.gather(
            *(self._pipeline.call("HLEN", key, repeatable=True) for key in keys)
        )
        return sum(counts)


def _nobody(_looked_at: int) -> None:
    """Show no progress."""
