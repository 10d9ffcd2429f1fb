"""``beeq ps``: the workers of queues, their jobs, and for how long these have run. Writes nothing."""

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import click

from beeq import Activity, LiveWorker, OtherJobs
from beeq.client.reader import Reader
from beeq.operations.live_workers import look_at
from beeq.operations.pauses import read_pause
from beeq_cli.commands.operate.every_queue import EveryQueue, QueueView
from beeq_cli.console import print_json, print_line, say
from beeq_cli.options import Common, common_options, examples, option
from beeq_cli.quantities import show_duration
from beeq_cli.running import FAILURE, run

_COLUMNS = ("queue", "worker", "busy", "beat", "up", "version")
#: Shown in place of a worker that is not one of beeq's.
_NODE, _UNNOTED = "(Node's)", "(unknown)"
_UNNOTED_LINE = "just begun, or taken by a worker that is gone or notes nothing"
_SILENCE = "no beeq worker has beaten within the last 30 s"


@click.command(
    short_help="Show the workers, and what runs on them for how long.",
    epilog=examples("beeq ps", "beeq ps greetings --json"),
)
@click.argument("queue_names", metavar="[QUEUE]...", nargs=-1)
@option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    default=10,
    help="At most so many jobs of each worker [10].",
)
@option("--json", "as_json", is_flag=True, help="Print an object a line: each worker, with all its jobs.")
@common_options()
@click.pass_obj
def ps(common: Common, /, queue_names: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show the workers of each QUEUE, or of every queue, and the jobs that run there, the longest first.

    Of each worker: how many of its places are taken, when it last beat (a worker counts as gone after 30 s
    without a beat), for how long it has worked, its version. Jobs are shown once they have run for half a
    second. Node's workers are seen by the jobs that they run.
    """
    queues = EveryQueue(common, queue_names)
    sys.exit(run(_show(queues, limit, as_json=as_json, is_quiet=common.is_quiet)))


async def _show(queues: EveryQueue, limit: int, *, as_json: bool, is_quiet: bool) -> int:
    paused: set[str] = set()

    async def look(view: QueueView) -> Activity | None:
        if queues.is_found:
            stats = await Reader(view.pipeline, view.keys).stats(with_age=False)
            if not (stats.workers or stats.active):
                return None
        pause = await read_pause(view.pipeline, view.keys)
        if pause is not None:
            paused.add(view.name)
            if not (as_json or is_quiet):
                say(f"{view.name} is paused {pause}")
        return await look_at(view.pipeline, view.keys)

    async with queues:
        found = await queues.ask(look)
    activities = {name: activity for name, activity in found.items() if activity is not None}
    if as_json:
        _print_objects(activities, paused)
    else:
        _print_lines(activities, limit)
    nobody = [] if queues.is_found else [name for name, each in activities.items() if not each.workers]
    if not is_quiet:
        for name in nobody:
            say(f"{name}: {_SILENCE}")
        if queues.is_found and not activities:
            say(f"{_SILENCE}, and no job runs")
    return FAILURE if queues.has_failed else 0


def _ranked(activities: Mapping[str, Activity]) -> list[tuple[str, LiveWorker]]:
    """Return every worker with its queue, those with the longest jobs first."""
    pairs = [(name, worker) for name, activity in activities.items() for worker in activity.workers]
    return sorted(pairs, key=lambda pair: (-pair[1].longest_ms, pair[0], pair[1].id))


def _print_objects(activities: Mapping[str, Activity], paused: Collection[str]) -> None:
    for name, worker in _ranked(activities):
        print_json({"queue": name, "paused": name in paused, **worker.shown()})
    for name, activity in activities.items():
        if activity.others != OtherJobs():
            print_json({"queue": name, "paused": name in paused, "worker": None, **_shown(activity.others)})


def _shown(others: OtherJobs) -> dict[str, Any]:
    return {
        "node": others.node_count,
        "claimed": others.claimed,
        "complete": others.is_complete,
        "jobs": [{"id": each, "silent": each in others.silent} for each in others.node],
    }


def _print_lines(activities: Mapping[str, Activity], limit: int) -> None:
    """Print a line for each worker, and below it one for each of its jobs."""
    blocks = [(_cells(name, worker), _job_lines(worker, limit)) for name, worker in _ranked(activities)]
    for name, activity in activities.items():
        others = activity.others
        if others.node_count:
            cells = [name, _NODE, str(others.node_count), "-", "-", "-"]
            blocks.append((cells, _node_lines(others, limit)))
        if others.claimed:
            blocks.append(([name, _UNNOTED, str(others.claimed), "-", "-", "-"], [_UNNOTED_LINE]))
    rows = [cells for cells, _ in blocks]
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    if blocks:
        print_line(_aligned(_COLUMNS, widths))
    for cells, lines in blocks:
        print_line(_aligned(cells, widths))
        for line in lines:
            print_line(f"    {line}")


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _cells(name: str, worker: LiveWorker) -> list[str]:
    busy = "?" if worker.places is None else f"{worker.busy}/{worker.places}"
    if worker.ahead:
        busy += f", {worker.ahead} ahead"
    if worker.is_taking is False:
        busy += " (takes no more)"
    up = "?" if worker.up_ms is None else show_duration(worker.up_ms)
    return [name, worker.id, busy, f"{show_duration(worker.beat_age_ms)} ago", up, worker.version or "?"]


def _job_lines(worker: LiveWorker, limit: int) -> list[str]:
    lines = [f"{job.id}  {show_duration(job.ran_ms)}" for job in worker.jobs[:limit]]
    more = len(worker.jobs) - limit
    return [*lines, f"and {more} more"] if more > 0 and limit else lines


def _node_lines(others: OtherJobs, limit: int) -> list[str]:
    lines = [
        f"{each}  no sign of life since the last stall check" if each in others.silent else each
        for each in others.node[:limit]
    ]
    more = others.node_count - len(lines)
    return [*lines, f"and {more} more"] if more > 0 and limit else lines
