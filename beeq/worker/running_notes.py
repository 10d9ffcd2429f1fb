"""A heartbeat's notes in Redis on its process and its running jobs, for ``ps`` and other commands.

Only changes are written, and only of jobs that have run for a while: most end too soon to be seen. This costs
jobs no time, because it runs in the heartbeat's thread.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Protocol

from beeq.client.reader import WORKER_LIFETIME_MS
from beeq.process import VERSION, now_ms
from beeq.protocol.keys import Keys
from beeq.protocol.running import ProcessFacts, encode_facts
from beeq.redis import scripts

#: A job is noted only after so long.
_NOTED_AFTER_MS = 500
#: How often the thread looks for such jobs between two beats; and how often if none ran the last time.
_LOOK_S, _IDLE_LOOK_S = 0.5, 1.0
#: About how many bytes the notes of one process have at most; of more jobs, the oldest are noted.
_MOST_BYTES = 1_000_000
#: The fields of the process itself.
_OTHER_FIELDS = 2
#: The bytes of a job's note beside its id.
_FIELD_BYTES = 20
#: One call names at most so many jobs, and not much more than so many bytes.
_MOST_JOBS_OF_CALL, _MOST_BYTES_OF_CALL = 500, 20_000


class LookedAt(Protocol):
    """A ``Worker``; all of this may be called in any thread. ``is_paused``: too many handlers hang."""

    is_paused: bool

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no more jobs."""

    def running_since(self) -> list[tuple[bytes, int]]:
        """Return id and start of each job that runs, in ms by this machine's clock."""


@dataclass(frozen=True, slots=True)
class WorkerLook:
    """A worker's state at one moment."""

    places: int
    is_taking: bool
    running: list[tuple[bytes, int]]
    ahead: int = 0


def looking_at(worker: LookedAt, *, places: int, ahead: Sized) -> Callable[[], WorkerLook | None]:
    """Return a function that reads the worker's state by a weak reference, and returns None once it is gone.

    ``ahead``: the jobs that it has claimed ahead.
    """
    worker_ref = weakref.ref(worker)

    def look() -> WorkerLook | None:
        found = worker_ref()
        if found is None:
            return None
        is_taking = not (found.is_stopping or found.is_paused)
        return WorkerLook(places, is_taking, found.running_since(), len(ahead))

    return look


class RunningNotes:
    """The notes of one heartbeat.

    Args:
        keys: of the queue and this process.
        stall_interval_ms: the queue's.
        look: looks at the worker.
    """

    def __init__(self, keys: Keys, *, stall_interval_ms: int, look: Callable[[], WorkerLook | None]) -> None:
        self._keys = keys
        self._stall_interval_ms = stall_interval_ms
        self._look = look
        self._started_ms = now_ms()
        self._noted: dict[bytes, int] = {}  # id → start, as Redis has them
        self._size_bytes = 0
        self._begins = True
        self._is_busy = False

    @property
    def look_s(self) -> float:
        """How soon to look again: hundreds of idle queues must not keep their thread busy."""
        return _LOOK_S if self._is_busy else _IDLE_LOOK_S

    def calls(self, *, is_beat: bool) -> Iterator[bytes]:
        """Yield the calls that bring Redis up to date; with no change none, except at a beat.

        Each is followed by ``answered``, or by ``failed``, which ends them.
        """
        look = self._look()
        if look is None:
            return
        clock_ms = now_ms()
        self._is_busy = bool(look.running or self._noted)
        if self._begins:
            self._noted, self._size_bytes = {}, 0
        changes = list(self._changes(dict(look.running), clock_ms))
        if not (changes or is_beat):
            return
        facts = ProcessFacts(
            version=VERSION,
            started_ms=self._started_ms,
            clock_ms=clock_ms,
            places=look.places,
            busy=len(look.running),
            ahead=look.ahead,
            is_taking=look.is_taking,
            stall_interval_ms=self._stall_interval_ms,
        )
        process = encode_facts(facts)
        for jobs in batches(changes, _MOST_JOBS_OF_CALL, _MOST_BYTES_OF_CALL):
            for raw_id, ran_ms in jobs:
                if ran_ms:
                    self._noted[raw_id] = clock_ms - int(ran_ms)
                else:
                    self._noted.pop(raw_id, None)
            yield scripts.note_running.pack(
                self._keys,
                lifetime_ms=WORKER_LIFETIME_MS,
                begins="1" if self._begins else "",
                process=process,
                jobs=jobs,
            )

    def _changes(self, running: dict[bytes, int], clock_ms: int) -> Iterator[tuple[bytes, bytes]]:
        """Yield each id that is gone, and those that are new, the oldest first; with the time it has run."""
        for raw_id, started_ms in self._noted.items():
            if running.get(raw_id) != started_ms:
                self._size_bytes -= len(raw_id) + _FIELD_BYTES
                yield raw_id, b""
        late = [
            (started_ms, raw_id)
            for raw_id, started_ms in running.items()
            if clock_ms - started_ms >= _NOTED_AFTER_MS and self._noted.get(raw_id) != started_ms
        ]
        for started_ms, raw_id in sorted(late):
            if self._size_bytes >= _MOST_BYTES:
                return
            self._size_bytes += len(raw_id) + _FIELD_BYTES
            yield raw_id, b"%d" % (clock_ms - started_ms)

    def answered(self, fields: int) -> None:
        """Take the reply of a call; begin again next time if Redis does not have all notes."""
        self._begins = fields != len(self._noted) + _OTHER_FIELDS

    def failed(self) -> None:
        """Begin again next time: it is unknown what was noted."""
        self._begins = True


def batches(
    jobs: list[tuple[bytes, bytes]], most_jobs: int, most_bytes: int
) -> Iterator[list[tuple[bytes, bytes]]]:
    """Yield the jobs of each call; without jobs one empty list."""
    batch: list[tuple[bytes, bytes]] = []
    size_bytes = 0
    for raw_id, text in jobs:
        size_bytes += len(raw_id) + len(text)
        if batch and (len(batch) == most_jobs or size_bytes > most_bytes):
            yield batch
            batch, size_bytes = [], len(raw_id) + len(text)
        batch.append((raw_id, text))
    yield batch
