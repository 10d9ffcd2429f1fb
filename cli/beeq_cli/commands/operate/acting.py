"""``beeq retry``, ``remove``, ``run``, ``cancel``: on jobs by their ids, or on many of a queue."""

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

from beeq import BulkCounts, Queue
from beeq.operations.job_filter import STATES, UNFINISHED, Filters
from beeq_cli.commands.operate.agreement import agreed, progress, refuse_unasked
from beeq_cli.commands.operate.filters import filter_options, filters_of
from beeq_cli.commands.operate.listing import print_found
from beeq_cli.commands.operate.targets import JobTarget, QueueFinder, only_one, queue_option
from beeq_cli.console import complain, print_id, print_json, print_line, say
from beeq_cli.options import Common, Decorated, common_options, examples, option, wait_replicas_option
from beeq_cli.running import FAILURE
from beeq_cli.running import run as run_coroutine


@dataclass(frozen=True, slots=True)
class Verb:
    """A command's action on jobs.

    Attributes:
        name: the command's.
        done: the report on a job afterwards.
        states: the states of jobs that it applies to.
        one: acts on one job of a queue; returns whether there was one.
        many: acts on all that match filters.
        missing: the message if no job of an id is in one of the states.
    """

    name: str
    done: str
    states: tuple[str, ...]
    one: Callable[[JobTarget], Awaitable[bool]]
    many: Callable[..., Awaitable[BulkCounts]]
    missing: str


async def _retry(target: JobTarget) -> bool:
    job = target.details.job
    return job is not None and await job.retry()


async def _remove(target: JobTarget) -> bool:
    await target.queue.remove_job(target.job_id)
    return True


async def _run(target: JobTarget) -> bool:
    return await target.queue.run_job(target.job_id)


async def _cancel(target: JobTarget) -> bool:
    return await target.queue.cancel_job(target.job_id)


RETRY = Verb("retry", "retried", ("failed",), _retry, Queue.retry_many, "no job {} has failed")
REMOVE = Verb("remove", "removed", (*STATES, "nowhere"), _remove, Queue.remove_many, "there is no job {}")
RUN = Verb("run", "queued", ("delayed",), _run, Queue.run_many, "no job {} is delayed")
CANCEL = Verb("cancel", "cancelled", UNFINISHED, _cancel, Queue.cancel_many, "no job {} waits or runs")


def _arguments(*states: str) -> Callable[[Decorated], Decorated]:
    """Add the common options of the four commands."""
    decorators = [
        common_options(),
        wait_replicas_option(),
        option("--json", "as_json", is_flag=True, help="Print an object a line: id and queue, or counts."),
        click.option("--yes", "is_agreed", is_flag=True, help="Act on many without asking."),
        click.option("--dry-run", is_flag=True, help="Show the jobs that are meant, and leave them."),
        filter_options(states=states),
        queue_option,
        click.argument("words", metavar="ID...|QUEUE", nargs=-1, required=True),
    ]

    def decorate(command: Decorated) -> Decorated:
        for decorator in decorators:
            command = decorator(command)
        return command

    return decorate


@click.command(
    short_help="Queue failed jobs again.",
    epilog=examples("beeq retry 17 18", "beeq retry mail --state failed --error timeout --yes"),
)
@_arguments("failed")
@click.pass_obj
def retry(common: Common, /, **options: Any) -> None:
    """Queue failed jobs again: each ID, or with a filter those of QUEUE that are meant.

    An id finds its queue by itself. On many it shows the number first and asks; without a terminal it needs
    --yes.
    """
    sys.exit(_do(RETRY, common, **options))


@click.command(
    short_help="Remove jobs, wherever they are.",
    epilog=examples("beeq remove 17", "beeq remove mail --state waiting --where data.user=7 --dry-run"),
)
@_arguments(*STATES)
@click.pass_obj
def remove(common: Common, /, **options: Any) -> None:
    """Remove jobs: each ID, or with a filter those of QUEUE that are meant; --state has to be named then.

    The handler of one that runs is stopped by its worker's next heartbeat. An id finds its queue by itself.
    """
    sys.exit(_do(REMOVE, common, **options))


@click.command(
    short_help="Queue delayed jobs now.",
    epilog=examples("beeq run 19", "beeq run mail --state delayed --limit 10 --yes"),
)
@_arguments("delayed")
@click.pass_obj
def run(common: Common, /, **options: Any) -> None:
    """Queue delayed jobs now, before they are due: each ID, or with a filter those of QUEUE."""
    sys.exit(_do(RUN, common, **options))


@click.command(
    short_help="End jobs, running or not.",
    epilog=examples("beeq cancel 20", "beeq cancel mail --state waiting --since 10m --yes"),
)
@_arguments(*UNFINISHED)
@click.pass_obj
def cancel(common: Common, /, **options: Any) -> None:
    """End jobs that run, wait or are delayed: each ID, or with a filter those of QUEUE that are meant.

    A job that runs is stopped where it runs. Exits with 1 if there is no such job, or it has ended.
    """
    sys.exit(_do(CANCEL, common, **options))


def _do(
    verb: Verb,
    common: Common,
    *,
    words: tuple[str, ...],
    queue_name: str | None,
    dry_run: bool,
    is_agreed: bool,
    as_json: bool,
    wait_replicas: int,
    **options: Any,
) -> int:
    filters = filters_of(options)
    if not filters:
        finder = QueueFinder(common, queue_name, wait_replicas=wait_replicas)
        return run_coroutine(_on_ids(verb, finder, words, dry_run=dry_run, as_json=as_json))
    if len(words) != 1 or queue_name is not None:
        raise click.UsageError("filters choose among the jobs of one QUEUE; ids go without filters")
    if verb is REMOVE and "state" not in filters:
        raise click.UsageError(f"--state has to be named: {', '.join(STATES)}")
    return run_many(
        verb.name,
        verb.done,
        verb.many,
        common,
        words[0],
        filters,
        dry_run=dry_run,
        is_agreed=is_agreed,
        as_json=as_json,
    )


async def _on_ids(
    verb: Verb, finder: QueueFinder, ids: Sequence[str], *, dry_run: bool, as_json: bool
) -> int:
    code = 0
    async with finder:
        for job_id in dict.fromkeys(ids):
            targets = await finder.having(job_id)
            target = only_one(job_id, [each for each in targets if each.details.state in verb.states])
            if target is None or not (dry_run or await verb.one(target)):
                complain(verb.missing.format(job_id) + _hint(targets))
                code = FAILURE
                continue
            name = target.queue.name
            if as_json:
                print_json({"id": job_id, "queue": name})
            else:
                print_id(job_id)
    return code


def _hint(targets: Sequence[JobTarget]) -> str:
    """Return where the job is, if it is anywhere."""
    places = ", ".join(f"{each.details.state} in {each.queue.name}" for each in targets)
    return f" (it is {places})" if places else ""


def run_many(  # noqa: PLR0917 - what the commands have in common
    verb: str,
    done: str,
    many: Callable[..., Awaitable[BulkCounts]],
    common: Common,
    queue_name: str,
    filters: Filters,
    *,
    dry_run: bool,
    is_agreed: bool,
    as_json: bool,
) -> int:
    """Act on all matching jobs of a queue, after a confirmation; return the exit code."""
    if not (dry_run or is_agreed):
        refuse_unasked(verb)
    finder = QueueFinder(common, queue_name)

    async def act() -> int:
        async with finder:
            queue = await finder.queue(queue_name)
            if dry_run:
                shown = await print_found(queue, filters, as_json=as_json)
                if not common.is_quiet:
                    say(f"{shown} {_jobs(shown)} of {queue_name} would be {done}")
                return 0
            if not is_agreed:
                with progress(is_quiet=common.is_quiet) as report:
                    counts = await many(queue, dry_run=True, on_progress=report, **filters)
                if not counts.matched:
                    say(f"No job of {queue_name} is meant")
                    return 0
                if not agreed(f"{verb} {counts.matched} {_jobs(counts.matched)} of {queue_name}?"):
                    return FAILURE
            with progress(is_quiet=common.is_quiet) as report:
                counts = await many(queue, on_progress=report, **filters)
            _report(counts, queue_name, done, as_json=as_json, is_quiet=common.is_quiet)
            return 0

    return run_coroutine(act())


def _jobs(count: int) -> str:
    return "job" if count == 1 else "jobs"


def _report(counts: BulkCounts, queue_name: str, done: str, *, as_json: bool, is_quiet: bool) -> None:
    if as_json:
        numbers = {"matched": counts.matched, done: counts.done}
        left = {"moved": counts.moved, "unreadable": counts.unreadable}
        print_json({"queue": queue_name, **numbers, **left})
    elif not is_quiet:
        left_alone = [
            f"{count} {why}"
            for count, why in (
                (counts.moved, "moved or changed meanwhile"),
                (counts.unreadable, "cannot be read"),
            )
            if count
        ]
        rest = f" ({', '.join(left_alone)})" if left_alone else ""
        total = f"{counts.matched} {_jobs(counts.matched)}"
        print_line(f"{done} {counts.done} of {total} of {queue_name}{rest}")
