"""The metrics by name, as ``prometheus_client`` writes them. Labels are queues, states and outcomes only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
except ImportError:
    raise ImportError(
        "metrics need prometheus-client: pip install 'beequeue[metrics]'", name="prometheus_client"
    ) from None

import beeq
from beeq.metrics.board import QueueSigns
from beeq.metrics.gauges import QueueGauges
from beeq.telemetry.tally import BUCKETS_S, Counts

_STATES = ("waiting", "active", "delayed", "succeeded", "failed")


@dataclass(frozen=True, slots=True)
class Readings:
    """The readings at a scrape, each by queue.

    Attributes:
        counts: the processes' counts.
        signs: the state of the work, one for each process.
        gauges: read from Redis; without the queues that could not be read.
    """

    counts: Mapping[str, Counts] = field(default_factory=dict)
    signs: Mapping[str, list[QueueSigns]] = field(default_factory=dict)
    gauges: Mapping[str, QueueGauges] = field(default_factory=dict)


def families(readings: Readings) -> Iterator[Metric]:
    """Yield the metrics."""
    yield from _of_redis(readings.gauges)
    yield from _of_work(readings.signs)
    build = GaugeMetricFamily("beeq_build_info", "beeq, by its version.", labels=("version",))
    build.add_metric((beeq.__version__,), 1)
    yield build
    yield from _of_counts(readings.counts)


def _of_redis(gauges: Mapping[str, QueueGauges]) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("beeq_jobs", "Jobs in Redis, by queue and state.", labels=("queue", "state"))
    oldest = _gauge(
        "beeq_queue_oldest_waiting_seconds", "How long ago the job that runs next was created; 0: none waits."
    )
    paused = _gauge("beeq_queue_paused", "Whether an operator has paused the queue: 1, else 0.")
    lag = _gauge("beeq_mirror_lag_jobs", "Changes of jobs that the status mirror has not written yet.")
    for name, each in gauges.items():
        for state in _STATES:
            jobs.add_metric((name, state), getattr(each.stats, state))
        if each.stats.oldest_waiting_ms is not None or not each.stats.waiting:
            oldest.add_metric((name,), (each.stats.oldest_waiting_ms or 0) / 1000)
        paused.add_metric((name,), int(each.is_paused))
        if each.stats.owed is not None:
            lag.add_metric((name,), each.stats.owed)
    yield from (jobs, oldest, paused, lag)


def _of_work(signs: Mapping[str, list[QueueSigns]]) -> Iterator[Metric]:
    slots = _gauge("beeq_worker_slots", "Jobs that may run at once, in all processes of this worker.")
    busy = _gauge("beeq_worker_slots_busy", "Slots that are taken.")
    turn = _gauge(
        "beeq_worker_last_turn_timestamp_seconds",
        "When Redis last answered this worker; of several processes, the one that waits longest.",
    )
    for name, processes in signs.items():
        slots.add_metric((name,), sum(each.slots for each in processes))
        busy.add_metric((name,), sum(each.busy for each in processes))
        turns = [each.last_turn_ms for each in processes if each.last_turn_ms]
        if turns:
            turn.add_metric((name,), min(turns) / 1000)
    yield from (slots, busy, turn)


def _of_counts(counts: Mapping[str, Counts]) -> Iterator[Metric]:
    enqueued = _counter("beeq_jobs_enqueued", "Jobs that this program has put into the queue.")
    finished = CounterMetricFamily(
        "beeq_jobs_finished",
        "Attempts that ended here, by outcome: succeeded, retrying, failed (for good), postponed, cancelled.",
        labels=("queue", "outcome"),
    )
    stalled = _counter("beeq_jobs_stalled", "Jobs queued again because their worker gave no sign of life.")
    lost = _counter(
        "beeq_jobs_lost", "Jobs of this worker that were another's before their end was recorded."
    )
    errors = _counter("beeq_redis_errors", "Tries that Redis refused or did not answer.")
    duration = _histogram("beeq_job_duration_seconds", "How long handlers ran, each attempt.")
    wait = _histogram("beeq_job_wait_seconds", "How long jobs waited for their first attempt, once due.")
    for name, each in counts.items():
        enqueued.add_metric((name,), each.enqueued)
        for outcome, count in each.ended().items():
            finished.add_metric((name, outcome), count)
        stalled.add_metric((name,), each.stalled)
        lost.add_metric((name,), each.lost)
        errors.add_metric((name,), each.redis_errors)
        _add_histogram(duration, name, each.durations())
        _add_histogram(wait, name, each.waits())
    yield from (enqueued, finished, stalled, lost, errors, duration, wait)


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, labels=("queue",))


def _counter(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, labels=("queue",))


def _histogram(name: str, text: str) -> HistogramMetricFamily:
    return HistogramMetricFamily(name, text, labels=("queue",))


def _add_histogram(family: HistogramMetricFamily, name: str, histogram: tuple[float, list[float]]) -> None:
    total_s, counts = histogram
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    reached = [sum(counts[: at + 1]) for at in range(len(counts))]
    family.add_metric((name,), list(zip(bounds, reached, strict=True)), total_s)


class _Collected:
    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def rendered(readings: Readings, accept: str) -> tuple[bytes, str]:
    """Return the text in a format of ``accept``, and its content type."""
    encoder, content_type = choose_encoder(accept)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families(readings)))
    return encoder(registry), content_type
