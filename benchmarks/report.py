"""A result file as a Markdown table and as a chart: ``python benchmarks/report.py results/bench.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_PEERS = ("bee-queue", "beeq")


def table(result: dict[str, Any]) -> str:
    """Return every number of a result file, beside bee-queue's of the same run."""
    lines = [
        "| | bee-queue | beeq | beeq is |",
        "|---|---:|---:|---:|",
    ]
    for row in result["measurements"]:
        theirs, ours = (row["median"][peer] for peer in _PEERS)
        digits = 0 if row["unit"] == "jobs/s" else 2
        numbers = [f"{value:,.{digits}f}".replace(",", " ") for value in (theirs, ours)]
        word = "times as fast" if row["unit"] == "jobs/s" else "of the time"
        lines.append(
            f"| {row['title']} ({row['unit']}) | {numbers[0]} | {numbers[1]} | {ours / theirs:.2f} {word} |"
        )
    lines += ["", _conditions(result["conditions"])]
    return "\n".join(lines)


def _conditions(facts: dict[str, Any]) -> str:
    return (
        f"Medians of {facts['rounds']} interleaved rounds. "
        f"{facts['cpu']}, {facts['cpus']} CPUs, {facts['system']}; "
        f"{facts['python']}, {facts['event_loop']}, redis-py {facts['redis-py']}, "
        f"hiredis {facts['hiredis']}; Node {facts['node']}, bee-queue {facts['bee-queue']}; "
        f"{facts['server']}, {facts['connection']}; "
        f"load average at the start {facts['load_average'][0]}; {facts['date']}."
    )


def chart(result: dict[str, Any], path: Path) -> None:
    """Draw the drain rates: medians as bars, the slowest and the fastest round as whiskers."""
    import matplotlib as mpl  # noqa: PLC0415 - the table needs none

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    mpl.rcParams["svg.hashsalt"] = "beeq"  # the same numbers give the same file
    rows = [row for row in result["measurements"] if row["kind"] == "drain"]
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    width = 0.38
    for nth, (peer, colour) in enumerate(zip(_PEERS, ("#9aa5b1", "#e0a100"), strict=True)):
        places = [at + (nth - 0.5) * width for at in range(len(rows))]
        medians = [row["median"][peer] for row in rows]
        spans = [
            [row["median"][peer] - min(row["rounds"][peer]) for row in rows],
            [max(row["rounds"][peer]) - row["median"][peer] for row in rows],
        ]
        bars = axes.bar(
            places, medians, width, label=peer, color=colour, yerr=spans, capsize=3, ecolor="#52606d"
        )
        axes.bar_label(
            bars, [f"{round(value):,}".replace(",", " ") for value in medians], padding=4, fontsize=8
        )
    axes.set_xticks(range(len(rows)), [f"concurrency {row['concurrency']}" for row in rows])
    axes.set_ylabel("jobs/s")
    axes.set_title("One worker process draining jobs that do nothing", fontsize=10)
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, format="svg", metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    measured = json.loads(source.read_text())
    print(table(measured))
    chart(measured, source.with_name("drain.svg"))
