"""Metrics and probes: what Prometheus scrapes, and what an orchestrator asks of a worker.

``QueueCollector`` (of ``beeq.metrics.collector``) is for a program's own registry; ``beeq worker`` serves a
``WorkerMonitor``. ``board`` is what processes share, ``gauges`` reads Redis, ``families`` names the metrics.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beeq.metrics.collector import QueueCollector

__all__ = ["QueueCollector"]


def __getattr__(name: str) -> Any:
    """Load ``prometheus_client`` where it is asked for: probes do without."""
    if name == "QueueCollector":
        from beeq.metrics.collector import QueueCollector  # noqa: PLC0415 - an extra

        return QueueCollector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
