"""``beeq stats``: how queues are doing, once or again and again. Looking writes nothing."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

from beeq import Queue, Stats
from beeq.jobs import JOB_TYPES
from beeq_cli.commands.conditions import Condition, parse_condition
from beeq_cli.console import print_json, print_line, safe, say
from beeq_cli.options import Common, common_options, examples, option, parsed
from beeq_cli.quantities import parse_interval, show_duration
from beeq_cli.running import FAILURE, opened, queues_to_look_into, run

_COLUMNS = ("queue", "waiting", "active", "succeeded", "failed", "delayed", "newest job", "workers", "oldest")


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

    The four built-in queues unless named.
    """
    if "" in queue_names:
        raise click.UsageError("QUEUE is empty")
    queues = queues_to_look_into(dict.fromkeys(queue_names or JOB_TYPES), common)
    with suppress(KeyboardInterrupt):  # that is how one stops looking
        sys.exit(run(_watch(queues, interval_ms, conditions, as_json=as_json)))


async def _watch(
    queues: Sequence[Queue], interval_ms: int | None, conditions: Sequence[Condition], *, as_json: bool
) -> int:
    async with opened(*queues):
        while True:
            found = await asyncio.gather(*(queue.stats() for queue in queues))
            by_name = {queue.name: stats for queue, stats in zip(queues, found, strict=True)}
            if as_json:
                print_json({name: stats.shown() for name, stats in by_name.items()})
            else:
                print_stats(by_name)
            if _report_failed(by_name, conditions):
                return FAILURE
            if interval_ms is None:
                return 0
            await asyncio.sleep(interval_ms / 1000)
            if not as_json:
                print_line()


def _report_failed(by_name: Mapping[str, Stats], conditions: Sequence[Condition]) -> bool:
    """Say which conditions are true of which queue; return whether any is."""
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


def print_stats(by_name: Mapping[str, Stats]) -> None:
    """Print a table for a person, or columns that a script can split."""
    if sys.stdout.isatty():
        _print_table(by_name)
    else:
        _print_text(by_name)
    owed = [stats.owed for stats in by_name.values() if stats.owed is not None]
    if owed:
        print_line()
        print_line(f"owed to the mirror: {sum(owed)}")


def _rows(by_name: Mapping[str, Stats]) -> list[list[str]]:
    rows = []
    for name, stats in by_name.items():
        shown = stats.shown()
        counts = [shown[name] for name in list(shown)[: len(_COLUMNS) - 2]]
        oldest = "-" if stats.oldest_waiting_ms is None else show_duration(stats.oldest_waiting_ms)
        rows.append([safe(name), *map(str, counts), oldest])
    return rows


def _print_text(by_name: Mapping[str, Stats]) -> None:
    """Print columns that line up and that a script can split."""
    rows = [[column.replace(" ", "-") for column in _COLUMNS], *_rows(by_name)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [
            first.ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)),
        ]
        print_line("  ".join(cells))


def _print_table(by_name: Mapping[str, Stats]) -> None:
    """Print a table for a person."""
    from rich import box  # noqa: PLC0415 - only for a person
    from rich.console import Console  # noqa: PLC0415 - only for a person
    from rich.table import Table  # noqa: PLC0415 - only for a person
    from rich.text import Text  # noqa: PLC0415 - only for a person

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for at, column in enumerate(_COLUMNS):
        table.add_column(column, justify="left" if at == 0 else "right", no_wrap=True)
    for (name, *cells), stats in zip(_rows(by_name), by_name.values(), strict=True):
        styles = {3: "green" if stats.succeeded else "dim", 4: "red" if stats.failed else "dim"}
        texts = [
            Text(cell, style=styles.get(at, "dim" if cell in "0-" else ""))
            for at, cell in enumerate(cells, 1)
        ]
        table.add_row(Text(name, style="cyan"), *texts)
    Console().print(table)
