"""A result file as a Markdown table, and as a chart: ``python benchmarks/report.py results/bench.json``.

``python benchmarks/report.py --readme`` writes the tables into the project's README.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_PEERS = ("bee-queue", "beeq")
#: The client that makes exchange calls and does nothing else.
_ALONE = "exchange alone"
#: The wording of a comparison, by the unit.
_WORDS = {"jobs/s": "times as fast", "ms": "of the time", "µs": "of the time", "bytes": "of the memory"}
#: Units with digits after the point.
_FINE = ("ms", "µs")
#: From this share of the machine on, the table warns of other programs before the run.
_BUSY = 0.1


def table(result: dict[str, Any]) -> str:
    """Return every number of a result file, beside bee-queue's of the same run.

    Where the script was measured alone, it is in a column of its own, with beeq's number divided by it.
    """
    rows = result["measurements"]
    has_alone = any(_ALONE in row["median"] for row in rows)
    lines = [
        "| | bee-queue | beeq | beeq is |" + (" the script alone (beeq ÷ it) |" if has_alone else ""),
        "|---|---:|---:|---:|" + ("---:|" if has_alone else ""),
    ]
    for row in rows:
        unit = row["unit"]
        digits = 2 if unit in _FINE else 0
        theirs, ours, alone = (row["median"].get(peer) for peer in (*_PEERS, _ALONE))
        numbers = ["–" if value is None else _number(value, digits) for value in (theirs, ours)]
        # A quick run may be too short for the clock of CPU time.
        compared = f"{ours / theirs:.2f} {_WORDS[unit]}" if theirs and ours is not None else "–"
        cells = [f"{row['title']} ({unit})", *numbers, compared]
        if has_alone:
            cells.append(f"{_number(alone, digits)} ({ours / alone:.2f})" if alone else "")
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", _conditions(result["conditions"])]
    return "\n".join(lines)


def peer_table(result: dict[str, Any]) -> str:
    """Return the rates of a result file of ``peers.py`` or ``producers.py``, and how much faster beeq is."""
    rows = result["measurements"]
    concurrencies = [row["concurrency"] for row in rows]
    titles = [
        *("", "version"),
        *(f"{row['title'].removeprefix('drain, ')} (jobs/s)" for row in rows),
        *(f"beeq, at {concurrency}" for concurrency in concurrencies),
        "note",
    ]
    lines = [f"| {' | '.join(titles)} |", f"|---|---|{'---:|' * (2 * len(rows))}---|"]
    for peer, about in result["peers"].items():
        rates = [row["median"].get(peer) for row in rows]
        ours = [row["median"].get("beeq") for row in rows]
        cells = [
            *(peer, about["version"]),
            *("–" if rate is None else _number(rate, 0) for rate in rates),
            *(_multiple(own, rate) for own, rate in zip(ours, rates, strict=True)),
            about["note"],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", _conditions(result["conditions"])]
    return "\n".join(lines)


def failover_table(result: dict[str, Any]) -> str:
    """Return what failovers cost, of a result file of ``failover.py``."""
    head = "| servers | failover | against loss | acknowledged | lost | of these never run | run twice "
    head += "| saves that raised | jobs run again after (s), median | worst |"
    lines = [head, f"|---|---|---|{'---:|' * 7}"]
    for scene in result["scenes"]:
        rounds = scene["rounds"]
        raised = sum(sum(one["raised"].values()) for one in rounds)
        sums = [
            sum(one[name] for one in rounds) for name in ("acknowledged", "lost", "never_run", "run_twice")
        ]
        paused = [one["pause_s"] for one in rounds]
        spans = (statistics.median(paused), max(paused)) if paused else ()
        cells = [
            *(scene["servers"], scene["fault"], scene["guard"]),
            *(_number(number, 0) for number in (*sums, raised)),
            *(_number(seconds, 1) for seconds in spans),
            *(() if spans else ("–", "–")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    facts = result["conditions"]
    below = f"Sums of {facts['rounds']} rounds each, 300 saves/s. "
    if failed := sum(len(scene["failed"]) for scene in result["scenes"]):
        below += f"{failed} rounds failed and are left out. "
    return "\n".join([*lines, "", below + _machine(facts)])


def _multiple(ours: float | None, theirs: float | None) -> str:
    return "–" if ours is None or theirs is None else f"{ours / theirs:.1f} ×"


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".replace(",", " ")


def _conditions(facts: dict[str, Any]) -> str:
    return f"Medians of {facts['rounds']} interleaved rounds. {_machine(facts)}"


def _machine(facts: dict[str, Any]) -> str:
    node = f"Node {facts['node']}, bee-queue {facts['bee-queue']}; " if "node" in facts else ""
    line = (
        f"{facts['cpu']}, {facts['cpus']} CPUs, {facts['system']}; "
        f"{facts['python']}, {facts['event_loop']}, redis-py {facts['redis-py']}, "
        f"hiredis {facts['hiredis']}; {node}"
        f"{facts['server']}, {facts['connection']}; "
        f"load average at the start {facts['load_average'][0]}"
    )
    if "load_average_end" in facts:
        line += f", at the end {facts['load_average_end'][0]}"
    if "others_busy" in facts:
        line += f"; other programs used {_share(facts['others_busy'])} of the machine during the run"
        line += f", {_share(facts['stolen'])} was taken by its host"
    line += f"; {facts['date']}."
    before = facts.get("busy_before", 0) + facts.get("stolen_before", 0)
    if before > _BUSY:
        line += (
            f"\n\n**Beware: {_share(before)} of the machine was busy with something else before the run.**"
        )
    return line


def _share(share: float) -> str:
    return f"{share * 100:.0f} %"


def chart(result: dict[str, Any], path: Path) -> None:
    """Draw the drain rates: medians as bars, the slowest and the fastest round as whiskers."""
    import matplotlib as mpl  # noqa: PLC0415 - the table needs none

    mpl.use("svg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the backend is chosen

    mpl.rcParams["svg.hashsalt"] = "beeq"  # the same numbers give the same file
    rows = [row for row in result["measurements"] if row["kind"] == "drain"]
    if not rows:
        return
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


#: Mark, result file and table of each that the README has.
README_TABLES = (
    ("benchmark", "bench.json", table),
    ("peers", "peers.json", peer_table),
    ("producers", "producers.json", peer_table),
)


def write_readme(readme: Path, results: Path) -> None:
    """Put the tables of the result files into the README, each between its two marks.

    The three ratios of its first screen are rounded down: no number there is better than the one measured.

    Raises:
        ValueError: a mark is missing, or the sentence with the ratios.
    """
    text = readme.read_text()
    for mark, name, tabled in README_TABLES:
        body = f"<!-- {mark} -->\n{tabled(json.loads((results / name).read_text()))}\n<!-- /{mark} -->"
        text = _replaced(rf"<!-- {mark} -->\n.*?\n<!-- /{mark} -->", body, text)
    rows = json.loads((results / "bench.json").read_text())["measurements"]
    medians = [row["median"] for row in rows if row["kind"] == "drain"]
    ratios = [math.floor(each["beeq"] / each["bee-queue"] * 10) / 10 for each in medians]
    claim = "worked off {}, {} and {} times".format(*ratios)
    readme.write_text(_replaced(r"worked off [\d.]+, [\d.]+ and [\d.]+ times", claim, text))


def _replaced(pattern: str, text: str, whole: str) -> str:
    replaced, count = re.subn(pattern, lambda _: text, whole, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the README has {pattern!r} {count} times")
    return replaced


def main(arguments: list[str]) -> None:
    """Print the table of a result file, and draw its chart; or write the README's tables."""
    if arguments == ["--readme"]:
        write_readme(_HERE.parent / "README.md", _HERE / "results")
        return
    source = Path(arguments[0])
    measured = json.loads(source.read_text())
    if "peers" in measured:
        print(peer_table(measured))
    elif "scenes" in measured:
        print(failover_table(measured))
    else:
        print(table(measured))
        chart(measured, source.with_name("drain.svg"))


if __name__ == "__main__":
    main(sys.argv[1:])
