"""``beeq stats``: how queues are doing, once or again and again. Looking writes nothing."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import click

from beeq import Pause, Stats
from beeq.client.reader import Reader
from beeq.jobs import JOB_TYPES
from beeq.operations.pauses import read_pause
from beeq_cli.commands.conditions import Condition, parse_condition
from beeq_cli.commands.operate.every_queue import EveryQueue, QueueView
from beeq_cli.commands.rates import Rate, rate_between
from beeq_cli.console import print_json, print_line, safe, say
from beeq_cli.options import Common, common_options, examples, option, parsed
from beeq_cli.quantities import parse_interval, show_duration
from beeq_cli.running import FAILURE, run

_COLUMNS = ("queue", "waiting", "active", "succeeded", "failed", "delayed", "newest job", "workers", "oldest")
_RATE_COLUMNS = ("in/s", "out/s")


@dataclass(frozen=True, slots=True)
class StatsLook:
    """One look at a queue, with its time by the monotonic clock."""

    stats: Stats
    pause: Pause | None
    at_s: float

    @property
    def is_nothing(self) -> bool:
        """Whether the queue is empty, with only its name registered."""
        shown = self.stats.shown()
        return self.pause is None and not any(shown.values())


@click.command(
    short_help="Show how queues are doing.",
    epilog=examples("beeq stats greetings", "beeq stats --fail-if 'waiting>1000' --fail-if 'oldest>5m'"),
)
@click.argument("queue_names", metavar="[QUEUE]...", nargs=-1)
@option(
    "-i",
    "--interval",
    "interval_ms",
    metavar="D",
    callback=parsed(parse_interval),
    help="Look again and again, each D (500ms, 2s, 5m; a bare number is seconds).",
)
@option(
    "--fail-if",
    "conditions",
    metavar="CONDITION",
    callback=parsed(parse_condition),
    multiple=True,
    help="Exit with 1 if it is true of any queue: waiting>1000, oldest>5m, workers=0.",
)
@option("--json", "as_json", is_flag=True, help="Print an object by queue.")
@common_options()
@click.pass_obj
def stats(
    common: Common,
    queue_names: tuple[str, ...],
    interval_ms: int | None,
    conditions: tuple[Condition, ...],
    as_json: bool,
) -> None:
    """Show the counts of each QUEUE, its workers, and the age of its oldest waiting job.

    Without a name: of every queue that Redis holds; the four built-in ones, if it holds none. With -i also
    how many jobs a second came in and left between two looks, as far as the counts tell. Looking writes
    nothing.
    """
    queues = EveryQueue(common, queue_names)
    with suppress(KeyboardInterrupt):  # the usual way to stop
        sys.exit(run(_watch(queues, interval_ms, conditions, as_json=as_json)))


async def _watch(
    queues: EveryQueue, interval_ms: int | None, conditions: Sequence[Condition], *, as_json: bool
) -> int:
    before: dict[str, StatsLook] = {}
    async with queues:
        while True:
            looks = await _look(queues)
            rates = _rates(before, looks)
            by_name = {name: look.stats for name, look in looks.items()}
            if as_json:
                print_json({name: _object(look, rates.get(name)) for name, look in looks.items()})
            else:
                print_stats(by_name, rates=None if interval_ms is None else rates)
                _print_pauses(looks)
            if _report_failed(by_name, conditions):
                return FAILURE
            if interval_ms is None:
                return FAILURE if queues.has_failed else 0
            before = looks
            await asyncio.sleep(interval_ms / 1000)
            if not as_json:
                print_line()


async def _look(queues: EveryQueue) -> dict[str, StatsLook]:
    """Look at every queue; leave out found ones that are empty."""

    async def look(view: QueueView) -> StatsLook:
        stats, pause = await asyncio.gather(
            Reader(view.pipeline, view.keys).stats(), read_pause(view.pipeline, view.keys)
        )
        return StatsLook(stats, pause, time.monotonic())

    looks = await queues.ask(look)
    if not queues.is_found:
        return looks
    held = {name: each for name, each in looks.items() if not each.is_nothing}
    if held or queues.has_failed:
        return held
    nothing = StatsLook(Stats(0, 0, 0, 0, 0, 0, 0, None), None, time.monotonic())
    return dict.fromkeys(JOB_TYPES, nothing)


def _rates(before: Mapping[str, StatsLook], after: Mapping[str, StatsLook]) -> dict[str, Rate]:
    return {
        name: rate_between(before[name].stats, look.stats, look.at_s - before[name].at_s)
        for name, look in after.items()
        if name in before
    }


def _object(look: StatsLook, rate: Rate | None) -> dict[str, Any]:
    """Return what ``--json`` prints of a queue: paused, and rates, only where there are such."""
    shown = look.stats.shown()
    if look.pause is not None:
        shown["paused"] = look.pause.shown()
    if rate is not None:
        shown |= {"inPerSecond": round(rate.came, 2), "outPerSecond": round(rate.left, 2)}
    return shown


def _print_pauses(looks: Mapping[str, StatsLook]) -> None:
    paused = {name: look.pause for name, look in looks.items() if look.pause is not None}
    if paused:
        print_line()
    for name, pause in paused.items():
        print_line(f"{name} is paused {pause}")


def _report_failed(by_name: Mapping[str, Stats], conditions: Sequence[Condition]) -> bool:
    """Print which conditions hold for which queue; return whether any does."""
    has_failed = False
    for name, stats in by_name.items():
        numbers = {**stats.shown(), "oldest": stats.oldest_waiting_ms}
        for condition in conditions:
            if condition.holds(numbers):
                has_failed = True
                shown = numbers[condition.name]
                if condition.name == "oldest" and shown is not None:
                    shown = show_duration(shown)
                say(f"{name}: {condition.name} is {shown} ({condition.text})")
    return has_failed


def print_stats(by_name: Mapping[str, Stats], *, rates: Mapping[str, Rate] | None = None) -> None:
    """Print a table for a person, or columns that a script can split; with rates, their columns, too."""
    columns = (*_COLUMNS, *(() if rates is None else _RATE_COLUMNS))
    rows = [_row(name, stats, rates) for name, stats in by_name.items()]
    if sys.stdout.isatty():
        _print_table(columns, rows)
    else:
        _print_text(columns, rows)
    owed = [stats.owed for stats in by_name.values() if stats.owed is not None]
    if owed:
        print_line()
        print_line(f"owed to the mirror: {sum(owed)}")


def _row(name: str, stats: Stats, rates: Mapping[str, Rate] | None) -> list[str]:
    shown = stats.shown()
    counts = [shown[name] for name in list(shown)[: len(_COLUMNS) - 2]]
    oldest = "-" if not stats.waiting else "?"
    if stats.oldest_waiting_ms is not None:
        oldest = show_duration(stats.oldest_waiting_ms)
    row = [safe(name), *map(str, counts), oldest]
    if rates is not None:
        rate = rates.get(name)
        row += ["-", "-"] if rate is None else [f"{rate.came:.1f}", f"{rate.left:.1f}"]
    return row


def _print_text(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns that line up and that a script can split."""
    lines = [[column.replace(" ", "-") for column in columns], *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for first, *others in lines:
        cells = [
            first.ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)),
        ]
        print_line("  ".join(cells))


def _print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table for a person."""
    from rich import box  # noqa: PLC0415 - only for a person
    from rich.console import Console  # noqa: PLC0415 - only for a person
    from rich.table import Table  # noqa: PLC0415 - only for a person
    from rich.text import Text  # noqa: PLC0415 - only for a person

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for at, column in enumerate(columns):
        table.add_column(column, justify="left" if at == 0 else "right", no_wrap=True)
    styles = {3: "green", 4: "red"}
    for name, *cells in rows:
        texts = [
            Text(cell, style="dim" if cell in ("0", "-") else styles.get(at, ""))
            for at, cell in enumerate(cells, 1)
        ]
        table.add_row(Text(name, style="cyan"), *texts)
    Console().print(table)
