"""beeq's metrics in a program's own registry of ``prometheus_client``."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from beeq.metrics.families import Readings, families
from beeq.metrics.gauges import READ_TIMEOUT_S, GaugeReader, QueueGauges
from beeq.metrics.probes import signs_of
from beeq.process import now_ms
from beeq.queue import Queue
from beeq.sync import Queue as BlockingQueue
from beeq.telemetry.tally import Counts, QueueTally

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: The longest wait for the thread that reads Redis.
_WAIT_S = READ_TIMEOUT_S + 1.0


class QueueCollector:
    """Collects the metrics of these queues, blocking ones or not.

    It counts this process's work on them from its construction on.

    ``REGISTRY.register(QueueCollector(queue))``. A scrape reads Redis over connections of its own, in a
    thread, for two seconds at most; if Redis does not answer, its metrics are left out. The labels
    are the queues' names, their states, and outcomes.

    Raises:
        ImportError: ``prometheus_client`` is missing (extra ``metrics``).
        ValueError: no queue, or two of a name.
    """

    def __init__(self, *queues: Queue | BlockingQueue) -> None:
        of_loop = [queue if isinstance(queue, Queue) else queue.twin for queue in queues]
        if len({queue.name for queue in queues}) < max(len(queues), 1):
            raise ValueError("QueueCollector needs queues, each with a name of its own")
        self._queues = of_loop
        for queue in of_loop:
            if queue.telemetry.tally is None:
                queue.telemetry.tally = QueueTally()

    def describe(self) -> Iterable[Metric]:
        """Return the metrics' names and texts, for a registry that rejects duplicates; reads nothing."""
        return families(Readings())

    def collect(self) -> Iterable[Metric]:
        """Return the metrics now; may be called in any thread."""
        counts: dict[str, Counts] = {}
        signs = {}
        for queue in self._queues:
            if queue.telemetry.tally is not None:
                counts[queue.name] = queue.telemetry.tally.read()
            health = queue.worker_health()
            if health.concurrency:
                signs[queue.name] = [signs_of(queue, health, now_ms=now_ms())]
        return list(families(Readings(counts, signs, self._read())))

    def _read(self) -> Mapping[str, QueueGauges]:
        found: dict[str, QueueGauges] = {}

        async def read() -> None:
            reader = GaugeReader(self._queues)
            try:
                found.update(await reader.read())
            finally:
                await reader.close()

        # In a thread, because the caller's may have a running loop.
        thread = threading.Thread(target=lambda: asyncio.run(read()), name="beeq-scrape", daemon=True)
        thread.start()
        thread.join(_WAIT_S)
        return dict(found)
