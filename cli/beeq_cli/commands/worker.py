"""``beeq worker``: works on queues until told to stop, or with ``--burst`` until they are empty."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from beeq import Queue
from beeq.jobs import JOB_TYPES
from beeq.mirror.mirror import Mirror
from beeq.processors import build
from beeq.processors.base import ProcessorSettings
from beeq.worker.supervisor import Lifeline, ProcessSupervisor
from beeq_cli import app, logs
from beeq_cli.commands.worker_process import WorkerProcess
from beeq_cli.failures import CANNOT_CONNECT, FAILURE
from beeq_cli.options import Common, common_options, mongo_option, option, parsed, read_mongo_url
from beeq_cli.quantities import parse_duration
from beeq_cli.running import run

#: click's own code for a wrong command.
_USAGE = 2


@click.command(short_help="Work on queues.")
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
    help="How long running jobs may take to end; then they are handed back [30s].",
)
@mongo_option()
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
    burst: bool,
    app_path: str | None,
    shutdown_timeout_ms: int,
    mongo_url: str | None,
    log_format: str,
) -> None:
    """Work on each QUEUE: the built-in ones and those of --app unless named.

    The first SIGTERM or SIGINT lets running jobs end; the second hands them back to their queue.
    """
    redis_url, mirror_url = common.redis_url(), read_mongo_url(mongo_url)
    logs.configure(log_format, is_verbose=common.is_verbose, is_quiet=common.is_quiet)
    lifeline: Lifeline | None = None
    if processes > 1:
        outcome = ProcessSupervisor(
            processes,
            is_burst=burst,
            shutdown_timeout_s=shutdown_timeout_ms / 1000,
            hopeless_codes=(FAILURE, _USAGE, CANNOT_CONNECT),
            on_started=lambda: logs.logger.info(logs.STARTED),
        ).run()
        if isinstance(outcome, int):
            sys.exit(outcome)
        lifeline = outcome
    try:
        process = _shift(
            queue_names,
            app_path,
            redis_url=redis_url,
            prefix=common.prefix,
            concurrency=concurrency,
            mongo_url=mirror_url,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from error

    def started() -> None:
        if lifeline is not None:
            lifeline.tell_ready()
        else:
            logs.logger.info(logs.STARTED)

    stop_fd = None if lifeline is None else lifeline.stop_fd
    run(
        process.work(
            burst=burst, shutdown_timeout_ms=shutdown_timeout_ms, on_started=started, stop_fd=stop_fd
        )
    )


def _shift(
    queue_names: Sequence[str],
    app_path: str | None,
    *,
    redis_url: str,
    prefix: str,
    concurrency: int | None,
    mongo_url: str | None,
) -> WorkerProcess:
    """Return the work to do.

    Raises:
        ValueError: a queue nobody here knows, a bad ``--app``, or a bad setting in the environment.
    """
    own = [] if app_path is None else app.load_queues(app_path, redis_url=redis_url)
    own_names = {queue.name for queue in own}
    for name in queue_names:
        if name not in JOB_TYPES and name not in own_names:
            known = ", ".join([*JOB_TYPES, *sorted(own_names - JOB_TYPES.keys())])
            raise ValueError(f"no handler for a queue {name!r}; there are {known}")
    if queue_names:
        own = [queue for queue in own if queue.name in queue_names]
    if concurrency is not None:
        for queue in own:
            queue.concurrency = concurrency
    mirror = None if mongo_url is None else Mirror(mongo_url, redis=redis_url, prefix=prefix)
    process = WorkerProcess(own, mirror)
    built_in = [name for name in dict.fromkeys(queue_names or JOB_TYPES) if name not in own_names]
    if built_in:
        processors = build(ProcessorSettings.from_environment(os.environ))
        for name in built_in:
            # Nobody here asks what becomes of jobs elsewhere.
            queue = Queue(
                name,
                redis=redis_url,
                prefix=prefix,
                get_events=False,
                store_jobs=False,
                mirrored=mirror is not None,
            )
            process.add(queue, processors[name], concurrency or 1)
    return process
