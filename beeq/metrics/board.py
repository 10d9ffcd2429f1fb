"""The state of a worker's processes, in memory that all of them share.

Made before they fork: each process has a place of its own, writes there, and any of them reads all places,
so any of them can answer for the whole worker. What a process has counted stays when it dies, and the one
that replaces it goes on with it; its signs of life do not.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from beeq.telemetry.tally import TALLY_SIZE, Counts, QueueTally

#: A place: process id, state, when it was written; the queues' names; their numbers. Untouched pages take
#: no memory.
_HEADER = struct.Struct("=qqdq")
_NAMES_AT, _NUMBERS_AT, _PLACE_BYTES = 64, 65_536, 262_144
#: Places taken, slots, last turn in ms since the epoch, whether it is ready, whether it is alive.
_SIGNS = 5
_QUEUE_SIZE = _SIGNS + TALLY_SIZE
#: So many queues are counted in one process.
MOST_QUEUES = (_PLACE_BYTES - _NUMBERS_AT) // (8 * _QUEUE_SIZE)


class ProcessState(IntEnum):
    """A process's state: ``AWAITED`` before its first start, and from its death to the next one's start."""

    AWAITED = 0
    STARTING = 1
    WORKING = 2
    DONE = 3


@dataclass(frozen=True, slots=True)
class QueueSigns:
    """The state of one queue's work in one process.

    Attributes:
        busy: places that are taken.
        slots: places there are.
        last_turn_ms: when Redis last answered the work, in ms since the epoch; 0: never.
        is_ready: it takes its turns.
        is_alive: there is no reason to restart the process.
    """

    busy: int
    slots: int
    last_turn_ms: int
    is_ready: bool
    is_alive: bool


@dataclass(frozen=True, slots=True)
class ProcessSigns:
    """The contents of one place: ``age_s`` is how long ago it was written."""

    pid: int
    state: ProcessState
    age_s: float
    queues: dict[str, QueueSigns]


class Board:
    """The places of ``count`` processes."""

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, count * _PLACE_BYTES)
        self.places = [BoardPlace(memoryview(self._memory), at * _PLACE_BYTES) for at in range(count)]

    def counts(self) -> dict[str, Counts]:
        """Return what all processes together have counted, by queue."""
        sums: dict[str, Counts] = {}
        for place in self.places:
            for name, counts in place.counts():
                sums[name] = sums.get(name, Counts()) + counts
        return sums

    def signs(self) -> list[ProcessSigns]:
        """Return the contents of each place."""
        return [place.signs() for place in self.places]


class BoardPlace:
    """One process's part of a ``Board``."""

    def __init__(self, memory: memoryview, start: int) -> None:
        self._memory = memory
        self._start = start
        self._numbers = memory[start + _NUMBERS_AT : start + _PLACE_BYTES].cast("d")
        self._names: list[str] = []

    # Writing: the process whose place it is.

    def take(self, queue_names: Sequence[str]) -> dict[str, QueueTally]:
        """Make this the running process's place; return the tallies, which go on from the counts there.

        A queue that does not fit gets no tally.
        """
        names = self._read_names()
        for at in range(len(names)):
            self._write_signs(at, QueueSigns(0, 0, 0, is_ready=False, is_alive=True))
        for name in dict.fromkeys(queue_names):
            encoded = json.dumps([*names, name]).encode()
            if name not in names and len(names) < MOST_QUEUES and len(encoded) <= _NUMBERS_AT - _NAMES_AT:
                names.append(name)
        encoded = json.dumps(names).encode()
        at = self._start + _NAMES_AT
        self._memory[at : at + len(encoded)] = encoded
        self._names = names
        self._write_header(ProcessState.STARTING, len(encoded))
        return {name: QueueTally(self._tally_of(names.index(name))) for name in queue_names if name in names}

    def write(self, state: ProcessState, signs: dict[str, QueueSigns]) -> None:
        """Write the process's present state."""
        for name, each in signs.items():
            if name in self._names:
                self._write_signs(self._names.index(name), each)
        self._write_header(state)

    def free(self, state: ProcessState) -> None:
        """Note that the process has ended: ``AWAITED`` if another one is to come, else ``DONE``."""
        self._write_header(state, pid=0)

    def _write_header(
        self, state: ProcessState, names_size: int | None = None, pid: int | None = None
    ) -> None:
        *_, size = _HEADER.unpack_from(self._memory, self._start)
        size = size if names_size is None else names_size
        pid = os.getpid() if pid is None else pid
        _HEADER.pack_into(self._memory, self._start, pid, state, time.monotonic(), size)

    def _write_signs(self, at: int, signs: QueueSigns) -> None:
        numbers = (signs.busy, signs.slots, signs.last_turn_ms, signs.is_ready, signs.is_alive)
        for offset, number in enumerate(numbers):
            self._numbers[at * _QUEUE_SIZE + offset] = float(number)

    def _tally_of(self, at: int) -> memoryview[float]:
        start = at * _QUEUE_SIZE + _SIGNS
        return self._numbers[start : start + TALLY_SIZE]

    # Reading: any process.

    def _read_names(self) -> list[str]:
        *_, size = _HEADER.unpack_from(self._memory, self._start)
        if not size:
            return []
        try:
            names: list[str] = json.loads(bytes(self._memory[self._start + _NAMES_AT :][:size]))
        except ValueError:
            return []  # they are just being written
        return names

    def counts(self) -> Iterator[tuple[str, Counts]]:
        """Yield each queue's name and counts."""
        for at, name in enumerate(self._read_names()):
            yield name, Counts(self._tally_of(at).tolist())

    def signs(self) -> ProcessSigns:
        """Return the process's state."""
        pid, state, written_s, _ = _HEADER.unpack_from(self._memory, self._start)
        queues = {}
        for at, name in enumerate(self._read_names() if pid else []):
            start = at * _QUEUE_SIZE
            busy, slots, last_turn_ms, is_ready, is_alive = self._numbers[start : start + _SIGNS].tolist()
            queues[name] = QueueSigns(
                int(busy), int(slots), int(last_turn_ms), is_ready=bool(is_ready), is_alive=bool(is_alive)
            )
        return ProcessSigns(pid, ProcessState(state), time.monotonic() - written_s, queues)
