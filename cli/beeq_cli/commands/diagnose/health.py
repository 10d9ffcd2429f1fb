"""``beeq health``: an exit code for a container's health check, and one line that says what is wrong."""

import asyncio
import sys
from typing import Any

import click

from beeq import Pause, RedisError, RedisRefused, Stats
from beeq.client.reader import Reader
from beeq.jobs import JOB_TYPES
from beeq.operations.pauses import read_pause
from beeq.operations.queue_names import find_queue_names
from beeq.operations.signs import WorkersSeen, workers_seen
from beeq.process import end_process
from beeq.protocol.keys import Keys
from beeq.redis.pipeline import Pipeline
from beeq.settings import parse_duration
from beeq_cli.console import complain, print_json, print_line
from beeq_cli.options import Common, common_options, examples, option, parsed
from beeq_cli.running import CANNOT_CONNECT, FAILURE, explained, opened, queues_to_look_into, run

#: How many queues a line names.
_MOST_NAMED = 3


@click.command(
    short_help="Say by the exit code whether Redis answers and workers take jobs.",
    epilog=examples(
        "beeq health || echo 'something is wrong'",
        "beeq health greetings --timeout 2s || echo 'nobody greets'",
    ),
)
@click.argument("queue_names", metavar="[QUEUE]...", nargs=-1)
@click.option(
    "--timeout",
    "timeout_ms",
    metavar="D",
    default="5s",
    callback=parsed(parse_duration),
    help="The longest that it may take (2s, 10s) [5s].",
)
@option("--json", "as_json", is_flag=True, help="Print an object.")
@common_options()
@click.pass_obj
def health(common: Common, /, queue_names: tuple[str, ...], timeout_ms: int, as_json: bool) -> None:
    """Exit with 0 if Redis answers and a worker takes jobs, from each QUEUE, or without one from any queue.

    Else with 1, or with 3 if Redis does not answer, and one line says what is wrong. beeq's workers are known
    by their beat, the last of which may be 30 s ago; Node's by jobs that they run, so an idle one is not
    seen. A paused queue's workers count.
    """
    if "" in queue_names:
        raise click.UsageError("QUEUE is empty")
    sys.exit(run(_health(common, list(dict.fromkeys(queue_names)), timeout_ms, as_json=as_json)))


async def _health(common: Common, names: list[str], timeout_ms: int, *, as_json: bool) -> int:
    problem, code, found = f"Redis has not answered within {timeout_ms} ms", CANNOT_CONNECT, {}
    look = asyncio.create_task(_look(common, names))
    await asyncio.wait([look], timeout=timeout_ms / 1000)
    is_in_time = look.done()
    if is_in_time:
        try:
            found = look.result()
            problem = _problem(found, is_each=bool(names))
            code = FAILURE if problem else 0
        except RedisError as error:
            problem, code = explained(error)
    if as_json:
        shown = {name: _shown(*facts) for name, facts in found.items()}
        print_json({"healthy": not problem, "problem": problem or None, "queues": shown})
    elif problem:
        complain(problem)
    elif not common.is_quiet:
        print_line(f"ok: {_good(found)}")
    if not is_in_time:
        end_process(code)  # closing connections would take time, too
    return code


#: The facts about a queue.
_Facts = tuple[Stats, WorkersSeen, Pause | None]


async def _look(common: Common, names: list[str]) -> dict[str, _Facts]:
    """Return the facts about each queue."""
    if names:
        queues = queues_to_look_into(names, common)
        async with opened(*queues):
            facts = await asyncio.gather(*(_facts(queue.pipeline, queue.keys) for queue in queues))
        return dict(zip(names, facts, strict=True))
    (queue,) = queues_to_look_into([next(iter(JOB_TYPES))], common)
    async with opened(queue):
        names, _ = await find_queue_names(queue.pipeline, queue.settings.prefix, registry=queue.keys.queues)
        looks = (_facts_or_none(queue.pipeline, Keys(queue.settings.prefix, name)) for name in names)
        found = await asyncio.gather(*looks)
    return {name: each for name, each in zip(names, found, strict=True) if each is not None}


async def _facts(pipeline: Pipeline, keys: Keys) -> _Facts:
    stats = await Reader(pipeline, keys).stats(with_age=False)
    seen, pause = await asyncio.gather(workers_seen(pipeline, keys, stats), read_pause(pipeline, keys))
    return stats, seen, pause


async def _facts_or_none(pipeline: Pipeline, keys: Keys) -> _Facts | None:
    """Return a queue's facts; None if it cannot be read: on another node, no right, keys of another type."""
    try:
        return await _facts(pipeline, keys)
    except RedisRefused:
        return None


def _problem(found: dict[str, _Facts], *, is_each: bool) -> str:
    """Return what is wrong, or ""."""
    idle = {name: stats for name, (stats, seen, _) in found.items() if not seen.is_any}
    if not idle if is_each else len(idle) < len(found):
        return ""
    waiting = sum(stats.waiting for stats in idle.values())
    jobs = f"{waiting} {'job waits' if waiting == 1 else 'jobs wait'}"
    where = _names(list(idle)) if is_each else "any queue"
    living = sum(len(found[name][1].living) for name in idle)
    lives = "beeq worker lives" if living == 1 else "beeq workers live"
    who = f"{living} {lives}, about to stop, or handlers hang there; " if living else ""
    return f"no worker is seen that takes jobs from {where} ({who}{jobs})"


def _good(found: dict[str, _Facts]) -> str:
    worked_on = {name: facts for name, facts in found.items() if facts[1].is_any}
    beeq = sum(seen.taking for _, seen, _ in worked_on.values())
    node = any(seen.node_jobs for _, seen, _ in worked_on.values())
    who = [f"{beeq} beeq {'worker' if beeq == 1 else 'workers'}"] if beeq else []
    who += ["Node workers"] if node else []
    paused = [name for name, facts in worked_on.items() if facts[2] is not None]
    rest = f"; paused: {_names(paused)}" if paused else ""
    return f"{' and '.join(who)} at {_names(list(worked_on))}{rest}"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _shown(stats: Stats, seen: WorkersSeen, pause: Pause | None) -> dict[str, Any]:
    return {
        "workers": len(seen.living),
        "taking": seen.taking,
        "nodeJobs": seen.node_jobs,
        "waiting": stats.waiting,
        "active": stats.active,
        "paused": pause is not None,
    }
