"""Compares the workers of a queue, by their notes on themselves. Pure."""

from collections.abc import Iterable

from beeq.operations.diagnosis.findings import Finding, plural
from beeq.operations.diagnosis.server import MOST_SKEW_MS
from beeq.operations.live_workers import LiveWorker
from beeq.settings import show_duration


def check_workers(workers: Iterable[LiveWorker]) -> list[Finding]:
    """Return settings that differ and should not. A worker of an earlier beeq does not note them."""
    by_interval: dict[str, list[str]] = {}
    by_version: dict[str, list[str]] = {}
    found = []
    for worker in workers:
        if worker.stall_interval_ms is not None:
            by_interval.setdefault(show_duration(worker.stall_interval_ms), []).append(worker.id)
        by_version.setdefault(worker.version or "an earlier one", []).append(worker.id)
        skew_ms = worker.clock_skew_ms or 0
        if abs(skew_ms) > MOST_SKEW_MS:
            way = "ahead of" if skew_ms > 0 else "behind"
            text = f"the clock of {worker.id} is {show_duration(abs(skew_ms))} {way} Redis's"
            found.append(Finding("clock", f"{text}: what is delayed from there runs too late or too early"))
    if len(by_interval) > 1:
        text = f"the workers' stall_interval differs: {_each(by_interval)}"
        found.append(Finding("stall-intervals", f"{text}; a short one takes the others' jobs for stalled"))
    if len(by_version) > 1:
        found.append(Finding("versions", f"the workers are of several versions of beeq: {_each(by_version)}"))
    return found


def _each(groups: dict[str, list[str]]) -> str:
    return ", ".join(
        f"{value} ({plural(len(names), 'worker', 'workers')}, {names[0]})"
        for value, names in sorted(groups.items())
    )
