"""A worker's ``/metrics``, ``/startupz``, ``/readyz`` and ``/livez``, served by a thread of its own.

A handler that blocks the event loop blocks no probe. With several processes each has such a thread, and all
listen on the sockets that were opened before they forked: the one that takes a request answers for all, from
the ``Board``. So the port answers as long as any process lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import Context
from socket import socket

from beeq.metrics import probes
from beeq.metrics.board import Board, BoardPlace, ProcessSigns, ProcessState, QueueSigns
from beeq.metrics.gauges import GaugeReader, QueueGauges
from beeq.metrics.http import Answer, Page, serve
from beeq.process import now_ms
from beeq.queue import Queue

logger = logging.getLogger("beeq")

#: Between two times that a process writes its signs.
_WRITE_S = 0.5
#: Once Redis is back, a worker's next try may come so much later.
_RECOVERY_S = 35.0


class WorkerMonitor:
    """One process's thread. ``start`` it when the queues are known, and call ``works`` once all are open.

    Args:
        board: of all processes.
        place: this process's.
        metrics: sockets that listen for ``/metrics``.
        health: sockets that listen for the probes; one may be in both.
    """

    def __init__(
        self, board: Board, place: BoardPlace, *, metrics: Sequence[socket], health: Sequence[socket]
    ) -> None:
        self._board = board
        self._place = place
        self._queues: Sequence[Queue] = ()
        self._state = ProcessState.STARTING
        self._gauges = GaugeReader(())
        self._asking: asyncio.Task[set[str]] | None = None
        self._redis_away_at_s = -_RECOVERY_S
        self._reading: asyncio.Task[Mapping[str, QueueGauges]] | None = None
        self._pages: list[tuple[socket, dict[str, Page]]] = []
        probe_pages: dict[str, Page] = {
            "/startupz": self._startupz,
            "/readyz": self._readyz,
            "/livez": self._livez,
        }
        for listener in dict.fromkeys((*metrics, *health)):
            pages: dict[str, Page] = {"/metrics": self._metrics} if listener in metrics else {}
            self._pages.append((listener, pages | (probe_pages if listener in health else {})))

    def start(self, queues: Sequence[Queue]) -> None:
        """Count what happens in the queues, and answer from now on, until the process ends."""
        for name, tally in self._place.take([queue.name for queue in queues]).items():
            for queue in queues:
                if queue.name == name:
                    queue.telemetry.tally = tally
        self._queues = queues
        thread = threading.Thread(target=Context().run, args=(self._main,), name="beeq-monitor", daemon=True)
        thread.start()

    def works(self) -> None:
        """Note that all queues are open; called in their loop."""
        self._gauges = GaugeReader(self._queues)
        self._state = ProcessState.WORKING

    # The thread.

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception:  # jobs go on without it
            logger.exception("metrics and probes are not served any more")

    async def _serve(self) -> None:
        servers = [await serve(listener, pages) for listener, pages in self._pages]
        with contextlib.ExitStack() as stack:
            for server in servers:
                stack.callback(server.close)
            while True:
                self._write()
                await asyncio.sleep(_WRITE_S)

    def _write(self) -> None:
        now = now_ms()
        signs: dict[str, QueueSigns] = {}
        for queue in self._queues:
            try:
                signs[queue.name] = probes.signs_of(queue, queue.worker_health(), now_ms=now)
            except RuntimeError:  # something changed while this thread looked: the next look succeeds
                continue
        self._place.write(self._state, signs)

    def _signs(self) -> list[ProcessSigns]:
        self._write()
        return self._board.signs()

    # The pages.

    async def _metrics(self, accept: str) -> Answer:
        from beeq.metrics.families import Readings, rendered  # noqa: PLC0415 - an extra

        signs: dict[str, list[QueueSigns]] = {}
        for process in self._signs():
            for name, each in process.queues.items():
                signs.setdefault(name, []).append(each)
        readings = Readings(self._board.counts(), signs, await self._read_gauges())
        content, content_type = rendered(readings, accept)
        return Answer(200, content, content_type)

    async def _read_gauges(self) -> Mapping[str, QueueGauges]:
        """Read the gauges from Redis; concurrent requests share one read."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.ensure_future(self._gauges.read())
        return await asyncio.shield(self._reading)

    async def _startupz(self, _accept: str) -> Answer:
        return _judged(probes.why_not_started(self._signs()))

    async def _readyz(self, _accept: str) -> Answer:
        return _judged(probes.why_not_ready(self._signs()))

    async def _livez(self, _accept: str) -> Answer:
        signs = self._signs()
        if not probes.stuck(signs):
            return _judged(())
        if self._asking is None or self._asking.done():
            self._asking = asyncio.ensure_future(self._gauges.answered())
        answered = await asyncio.shield(self._asking)
        why = probes.why_not_alive(signs, answered=answered)
        if len(answered) < len(self._queues):
            self._redis_away_at_s = time.monotonic()
        if not why:
            return Answer(200, b"ok: Redis does not answer\n")
        if time.monotonic() - self._redis_away_at_s < _RECOVERY_S:
            return Answer(200, b"ok: Redis was away, the worker comes back\n")
        return _judged(why)


def _judged(why: Sequence[str]) -> Answer:
    if not why:
        return Answer(200, b"ok\n")
    return Answer(503, "".join(f"{line}\n" for line in why).encode("utf-8", "replace"))
