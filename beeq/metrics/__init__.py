"""Metrics for Prometheus, and a worker's probes for an orchestrator.

``QueueCollector`` (of ``beeq.metrics.collector``) is for a program's own registry; ``beeq worker`` serves a
``WorkerMonitor``. ``board`` is what processes share, ``gauges`` reads Redis, ``families`` names the metrics.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beeq.metrics.collector import QueueCollector

__all__ = ["QueueCollector"]


def __getattr__(name: str) -> Any:
    """Load ``prometheus_client`` on demand: probes do without."""
    if name == "QueueCollector":
        from beeq.metrics.collector import QueueCollector  # noqa: PLC0415 - an extra

        return QueueCollector
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
