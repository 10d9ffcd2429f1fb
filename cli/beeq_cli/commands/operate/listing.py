"""``beeq jobs``: the jobs of a queue, a line each."""

import sys
from typing import Any

import click

from beeq import Queue
from beeq.operations.job_filter import Filters
from beeq_cli.commands.operate.filters import filter_options, filters_of
from beeq_cli.commands.operate.lines import found_line, found_object
from beeq_cli.console import print_json, print_line, say
from beeq_cli.options import Common, common_options, examples, option
from beeq_cli.running import opened, queues_to_look_into, run

#: How many jobs are shown unless ``--limit`` says so.
_SHOWN = 100


@click.command(
    short_help="Show the jobs of a queue.",
    epilog=examples("beeq jobs mail --state failed --error timeout --where data.user=7 --since 1h"),
)
@click.argument("queue_name", metavar="QUEUE")
@filter_options()
@option("--json", "as_json", is_flag=True, help="Print an object a line.")
@common_options()
@click.pass_obj
def jobs(common: Common, /, queue_name: str, as_json: bool, **options: Any) -> None:
    """Show the jobs of QUEUE that the filters mean: id, state, age, and the error or else the data.

    The first hundred, unless --limit says so. Those that wait, run or are delayed come in the order in which
    they run. Looking changes nothing.
    """
    if not queue_name:
        raise click.UsageError("QUEUE is empty")
    filters = filters_of(options)
    (queue,) = queues_to_look_into([queue_name], common)
    sys.exit(run(_show(queue, filters, as_json=as_json, is_quiet=common.is_quiet)))


async def _show(queue: Queue, filters: Filters, *, as_json: bool, is_quiet: bool) -> int:
    is_limited = "limit" in filters
    async with opened(queue):
        shown = await print_found(queue, {"limit": _SHOWN, **filters}, as_json=as_json)
    if shown == _SHOWN and not is_limited and not is_quiet:
        say(f"These are the first {_SHOWN}; --limit shows more")
    return 0


async def print_found(queue: Queue, filters: Filters, *, as_json: bool) -> int:
    """Print the matching jobs as they are found; return how many there were."""
    shown = 0
    try:
        found_jobs = queue.find_jobs(**filters)
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    async for found in found_jobs:
        shown += 1
        if as_json:
            print_json(found_object(queue.name, found))
        else:
            print_line(found_line(found))
    return shown
