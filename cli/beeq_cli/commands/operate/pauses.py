"""``beeq pause``, ``beeq resume``: workers take no jobs from queues, for a while or until resumed."""

import sys
from typing import Any

import click

from beeq import NoWorkerLives, Pause, Queue, RedisRefused, Stats
from beeq.settings import parse_duration
from beeq_cli.commands.operate.lines import age, moment
from beeq_cli.console import complain, print_json, print_line, say
from beeq_cli.options import Common, common_options, examples, option, parsed, wait_replicas_option
from beeq_cli.running import FAILURE, opened, queues_to_look_into, run

_queues = click.argument("queue_names", metavar="QUEUE...", nargs=-1, required=True)
_as_json = option("--json", "as_json", is_flag=True, help="Print an object a line.")


@click.command(
    short_help="Have workers take no jobs from a queue.",
    epilog=examples("beeq pause mail --for 10m --reason 'the mail server moves'", "beeq pause mail reports"),
)
@_queues
@click.option("--everyone", is_flag=True, help="Hide waiting jobs from Node workers, too, as far as it goes.")
@click.option(
    "--for",
    "lasts_ms",
    metavar="D",
    callback=parsed(parse_duration),
    help="How long (10m, 2h); else until beeq resume.",
)
@click.option("--reason", metavar="TEXT", default="", help="Why, for who looks later.")
@wait_replicas_option()
@_as_json
@common_options()
@click.pass_obj
def pause(common: Common, /, **options: Any) -> None:
    """Have beeq's workers take no jobs from each QUEUE, within a second; those that run go on.

    Workers that start later take none, either, and producers go on. A pause with --for ends by itself. Node
    workers know of no pause: --everyone moves the waiting jobs aside, and again each second what comes in;
    until then a Node worker may take one. That needs a beeq worker which is at work on the queue.
    """
    sys.exit(run(_pause(common, **options)))


@click.command(short_help="End the pause of a queue.", epilog=examples("beeq resume mail"))
@_queues
@wait_replicas_option()
@_as_json
@common_options()
@click.pass_obj
def resume(common: Common, /, **options: Any) -> None:
    """Let workers take jobs from each QUEUE again. Hidden jobs come back, the oldest in front."""
    sys.exit(run(_resume(common, **options)))


async def _pause(
    common: Common,
    *,
    queue_names: tuple[str, ...],
    everyone: bool,
    lasts_ms: int | None,
    reason: str,
    wait_replicas: int,
    as_json: bool,
) -> int:
    code = 0
    queues = _queues_of(queue_names, common, wait_replicas)
    async with opened(*queues):
        for queue in queues:
            try:
                earlier = await queue.paused()
                paused = await queue.pause(reason, for_=lasts_ms, everyone=everyone)
            except (NoWorkerLives, RedisRefused) as error:  # the others are paused anyway
                complain(str(error) if isinstance(error, NoWorkerLives) else f"{queue.name}: {error}")
                code = FAILURE
                continue
            except (TypeError, ValueError) as error:
                raise click.UsageError(str(error)) from None
            try:
                stats = await queue.stats()
            except RedisRefused as refused:
                complain(f"{queue.name} is paused, and its jobs cannot be counted: {refused}")
                code = FAILURE
                continue
            if not common.is_quiet:
                if earlier is not None:
                    say(f"{queue.name} was paused already: {_shown(earlier)}")
                if _is_unknown(stats):
                    say(f"{queue.name} has no jobs and no workers: is that its name?")
            if as_json:
                numbers = {"workers": stats.workers, "active": stats.active, "waiting": stats.waiting}
                print_json({"queue": queue.name, **paused.shown(), **numbers})
            elif not common.is_quiet:
                until = "" if paused.until_ms is None else f" until {moment(paused.until_ms)}"
                print_line(
                    f"paused {queue.name}{until}: {_count(stats.workers, 'worker')},"
                    f" {_count(stats.active, 'job')} running, {stats.waiting} waiting"
                )
    return code


async def _resume(common: Common, *, queue_names: tuple[str, ...], wait_replicas: int, as_json: bool) -> int:
    code = 0
    queues = _queues_of(queue_names, common, wait_replicas)
    async with opened(*queues):
        for queue in queues:
            try:
                ended = await queue.resume()
            except RedisRefused as refused:  # the others are resumed anyway
                complain(f"{queue.name}: {refused}")
                code = FAILURE
                continue
            if as_json:
                print_json({"queue": queue.name, "was": None if ended is None else ended.shown()})
            elif common.is_quiet:
                continue
            elif ended is None:
                say(f"{queue.name} was not paused")
            else:
                print_line(f"resumed {queue.name}, which was paused {_shown(ended)}")
    return code


def _queues_of(names: tuple[str, ...], common: Common, wait_replicas: int) -> list[Queue]:
    if "" in names:
        raise click.UsageError("QUEUE is empty")
    return queues_to_look_into(dict.fromkeys(names), common, wait_replicas=wait_replicas)


def _is_unknown(stats: Stats) -> bool:
    counts = (stats.waiting, stats.active, stats.succeeded, stats.failed, stats.delayed, stats.newest_job)
    return not (any(counts) or stats.workers)


def _shown(pause: Pause) -> str:
    since = f" {age(pause.since_ms)}" if pause.since_ms else ""
    reason = f" ({pause.reason})" if pause.reason else ""
    return f"by {pause.by or 'somebody'}{since}{reason}"


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
