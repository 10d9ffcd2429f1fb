"""``beeq worker``: works on queues until a signal comes, or with ``--burst`` until they are empty."""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from beeq import Queue, RedisError
from beeq.client.closing import within
from beeq.jobs import JOB_TYPES
from beeq.mirror.mirror import Mirror
from beeq.process import STOPS, LastResort, stop_signals
from beeq.processors import build
from beeq.processors.base import Processor, ProcessorSettings
from beeq.redis.urls import CLUSTER_SCHEMES, has_hash_tag, scheme_of
from beeq.settings import parse_duration
from beeq.worker.supervisor import Lifeline, ProcessSupervisor
from beeq.workers import HAND_BACK, WorkerProcess
from beeq_cli import app, logs
from beeq_cli.options import (
    Common,
    common_options,
    examples,
    mongo_option,
    option,
    parsed,
    project_id_option,
    read_mongo_url,
    read_project_id,
)
from beeq_cli.running import CANNOT_CONNECT, FAILURE, USAGE, connect, run

#: How long the mirror may take to catch up in the end.
_CATCH_UP_S = 10.0
#: How long processors may take to close.
_CLOSE_S = 1.0
#: So long after the queues have closed the process ends, whatever hangs: processors, the mirror's writing.
_GRACE_S = _CLOSE_S + _CATCH_UP_S + 2


@click.command(
    short_help="Work on queues.",
    epilog=examples("beeq worker webhook-processing --burst", "beeq worker --app jobs:queue -c 10 --burst"),
)
@click.argument("queue_names", metavar="[QUEUE]...", nargs=-1)
@option(
    "-c",
    "--concurrency",
    metavar="N",
    type=click.IntRange(min=1),
    help="Jobs at once, per queue and process [1].",
)
@option(
    "-w", "--processes", metavar="N", type=click.IntRange(1, 1024), default=1, help="Worker processes [1]."
)
@option(
    "--max-hung",
    metavar="N",
    type=click.IntRange(min=1),
    help="Handlers of a queue that may go on after their time; then the process takes no more jobs and is "
    "replaced [as many as run at once, at least 10; without this option replaced with -w only].",
)
@option("-b", "--burst", is_flag=True, help="End when nothing is left that is due.")
@option(
    "--app", "app_path", metavar="MODULE:ATTR", help="Your own Queue, or list of them, with their handlers."
)
@option(
    "--shutdown-timeout",
    "shutdown_timeout_ms",
    metavar="D",
    callback=parsed(parse_duration),
    default="30s",
    help="How long running jobs may take to end (500ms, 30s, 5m); then they are handed back [30s].",
)
@mongo_option()
@project_id_option()
@option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", help="How the log is written [text]."
)
@common_options()
@click.pass_obj
def worker(  # noqa: PLR0917 - one parameter an option
    common: Common,
    queue_names: tuple[str, ...],
    concurrency: int | None,
    processes: int,
    max_hung: int | None,
    burst: bool,
    app_path: str | None,
    shutdown_timeout_ms: int,
    mongo_url: str | None,
    mongo_project_id: str | None,
    log_format: str,
) -> None:
    """Work on each QUEUE: the built-in ones and those of --app unless named.

    The first SIGTERM or SIGINT lets running jobs end; the second hands them back to their queue. A process
    that a handler keeps from stopping is ended some seconds after its time, with exit code 1. With -w or
    --max-hung a parent runs the processes, and replaces those that die or in which too many handlers hang.
    """
    redis_url, mirror_url = common.redis_url(), read_mongo_url(mongo_url)
    id_type = read_project_id(mongo_project_id)
    logs.configure(log_format, is_verbose=common.is_verbose, is_quiet=common.is_quiet)
    lifeline: Lifeline | None = None
    if processes > 1 or max_hung is not None:
        supervisor = ProcessSupervisor(
            processes,
            is_burst=burst,
            shutdown_timeout_s=shutdown_timeout_ms / 1000 + (0 if mirror_url is None else _CATCH_UP_S),
            hopeless_codes=(FAILURE, USAGE, CANNOT_CONNECT),
            on_started=lambda: logs.logger.info(logs.STARTED),
        )
        outcome = supervisor.run()
        if isinstance(outcome, int):
            sys.exit(outcome or (FAILURE if supervisor.was_forced else 0))
        lifeline = outcome
    try:
        queues = _own_queues(queue_names, app_path, redis_url, concurrency)
        mirror = (
            None
            if mirror_url is None
            else Mirror(mirror_url, redis=redis_url, prefix=common.prefix, project_id_type=id_type)
        )
        built_in = _built_in(queue_names, queues, is_own_only=app_path is not None and _has_no_tag(common))
        processors = build(ProcessorSettings.from_environment(os.environ)) if built_in else {}
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    for name in built_in:
        # This process has no use for the events of jobs that run elsewhere.
        queue = Queue(
            name,
            redis=redis_url,
            prefix=common.prefix,
            get_events=False,
            store_jobs=False,
            mirrored=mirror is not None,
        )
        queue.process(processors[name], concurrency or 1)
        queues.append(queue)
    for queue in queues:
        queue.max_hung = max_hung or queue.max_hung
    work = _work(
        queues, processors, mirror, lifeline=lifeline, burst=burst, shutdown_timeout_ms=shutdown_timeout_ms
    )
    sys.exit(run(work))


def _has_no_tag(common: Common) -> bool:
    """Return whether Redis is a cluster that would not take the built-in queues under this prefix."""
    return scheme_of(common.redis_url()) in CLUSTER_SCHEMES and not has_hash_tag(common.prefix)


def _built_in(names: Sequence[str], own: Sequence[Queue], *, is_own_only: bool) -> list[str]:
    """Return the built-in queues to work on; none that are not named where ``is_own_only``."""
    if is_own_only and not names:
        logs.logger.info(
            "the built-in queues are left out: in a cluster they need a hash tag, as with --prefix {bq}"
        )
    own_names = {queue.name for queue in own}
    wanted = names or (() if is_own_only else JOB_TYPES)
    return [name for name in dict.fromkeys(wanted) if name not in own_names]


def _own_queues(
    names: Sequence[str], app_path: str | None, redis_url: str, concurrency: int | None
) -> list[Queue]:
    """Return the queues of ``--app`` to work on. Raises ValueError if a queue has no handler."""
    own = [] if app_path is None else app.load_queues(app_path, redis_url=redis_url)
    known = dict.fromkeys([*JOB_TYPES, *sorted(queue.name for queue in own)])
    for name in names:
        if name not in known:
            raise ValueError(f"no handler for a queue {name!r}; there are {', '.join(known)}")
    queues = [queue for queue in own if not names or queue.name in names]
    for queue in queues:
        queue.concurrency = concurrency or queue.concurrency
    return queues


async def _work(
    queues: Sequence[Queue],
    processors: Mapping[str, Processor[Any]],
    mirror: Mirror | None,
    *,
    lifeline: Lifeline | None,
    burst: bool,
    shutdown_timeout_ms: int,
) -> int:
    """Work on the queues, and write the mirror, until stopped or done; return the exit code."""
    for queue in queues:
        logs.follow(queue)

    def hand_back(queue: Queue) -> None:
        logs.logger.warning("running jobs were handed back", extra={"queue": queue.name})

    def start() -> None:
        if mirror is not None:
            mirror.start()
        if lifeline is not None:
            lifeline.report_ready()
        else:
            logs.logger.info(logs.STARTED)

    process = WorkerProcess(queues, connect=connect, on_hand_back=hand_back)
    last_resort = LastResort(
        _GRACE_S, code=FAILURE, last_words="processors or the mirror did not close in time"
    )
    numbers = STOPS if lifeline is None else (signal.SIGTERM,)
    with stop_signals(lambda: None, numbers=numbers):
        try:
            await process.work(
                burst=burst,
                shutdown_timeout_ms=shutdown_timeout_ms,
                on_started=start,
                stop_fd=None if lifeline is None else lifeline.stop_fd,
                is_guarded=lifeline is None,
            )
        finally:
            last_resort.begin()
            await within(_CLOSE_S, *(processor.close() for processor in processors.values()))
            if mirror is not None:
                await _catch_up(mirror, 0 if process.urgency >= HAND_BACK else _CATCH_UP_S)
            last_resort.cancel()
    return process.code


async def _catch_up(mirror: Mirror, timeout_s: float) -> None:
    """Let the mirror write what it can in time, and stop it; the rest stays in Redis for the next worker."""
    try:
        if mirror.is_running and not await mirror.flush(timeout_s):
            logs.logger.warning("the mirror is behind; the next worker will write the rest")
    except RedisError as error:
        logs.logger.warning("the mirror is behind: %s", error)
    finally:
        await mirror.stop()
