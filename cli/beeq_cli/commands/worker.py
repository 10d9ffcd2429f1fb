"""``beeq worker``: works on queues until a signal comes, or with ``--burst`` until they are empty."""

import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from socket import socket
from typing import Any, Literal

import click

from beeq import Queue, RedisError
from beeq.client.closing import within
from beeq.jobs import JOB_TYPES
from beeq.logs.records import HANDED_BACK, log_event
from beeq.logs.setup import enable
from beeq.metrics.monitor import WorkerMonitor
from beeq.mirror.mirror import Mirror
from beeq.process import STOPS, LastResort, stop_signals
from beeq.processors import build
from beeq.processors.base import Processor, ProcessorSettings
from beeq.settings import Keep, parse_duration
from beeq.telemetry.tracing import Tracing
from beeq.worker.supervisor import Lifeline, ProcessSupervisor
from beeq.workers import HAND_BACK, WorkerProcess, log_end, started_line
from beeq_cli import app, keep, logs
from beeq_cli.console import say
from beeq_cli.keep import keep_options
from beeq_cli.monitoring import MonitorPorts, check_bind, monitoring_options, open_ports
from beeq_cli.options import (
    Common,
    common_options,
    examples,
    is_on_command_line,
    log_format_option,
    mongo_option,
    option,
    parsed,
    project_id_option,
    read_mongo_url,
    read_project_id,
)
from beeq_cli.page import PageProcess, PageTarget, open_page_port
from beeq_cli.running import CANNOT_CONNECT, FAILURE, USAGE, connect, run

#: How long the mirror may take to catch up in the end.
_CATCH_UP_S = 10.0
#: How long processors may take to close.
_CLOSE_S = 1.0
#: So long after the queues have closed the process ends, even if processors or the mirror's writer hang.
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
    help="Jobs at once, per queue and process [1, or what --app says].",
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
    "--app",
    "app_path",
    metavar="MODULE:ATTR",
    help="Work on your own Queue, or list of them: jobs:queue is queue in jobs.py.",
)
@option(
    "--shutdown-timeout",
    "shutdown_timeout_ms",
    metavar="D",
    callback=parsed(parse_duration),
    default="30s",
    help="How long running jobs may take to end (500ms, 30s, 5m); then they are handed back [30s].",
)
@keep_options()
@mongo_option()
@project_id_option()
@monitoring_options()
@option(
    "--tracing",
    type=click.Choice(["off", "link", "child"]),
    help="OpenTelemetry spans of jobs: each attempt linked to the saving of its job, or a child of it "
    "[off, or what --app says].",
)
@log_format_option()
@common_options()
@click.pass_context
def worker(  # noqa: PLR0917 - one parameter an option
    ctx: click.Context,
    queue_names: tuple[str, ...],
    concurrency: int | None,
    processes: int,
    max_hung: int | None,
    burst: bool,
    app_path: str | None,
    shutdown_timeout_ms: int,
    keep_succeeded: Keep | None,
    keep_failed: Keep | None,
    job_timeout: int | None,
    mongo_url: str | None,
    mongo_project_id: str | None,
    metrics_port: int | None,
    health_port: int | None,
    web_port: int | None,
    bind: str,
    tracing: Literal["off", "link", "child"] | None,
    log_format: str,
) -> None:
    """Work on each QUEUE. Unless named: those of --app, or without it the built-in ones.

    With --app, the options of this line win over what its queues were made with; BEEQ_… variables do not.
    Ended jobs that such workers have recorded are dropped in time, with their results: see --keep-….
    The first SIGTERM or SIGINT lets running jobs end; the second hands them back to their queue. A process
    that a handler keeps from stopping is ended some seconds after its time, with exit code 1. With -w or
    --max-hung a parent runs the processes, and replaces those that die or in which too many handlers hang.
    """
    common = ctx.ensure_object(Common)
    redis_url, mirror_url = common.redis_url(), read_mongo_url(mongo_url)
    id_type = read_project_id(mongo_project_id)
    logs.set_up(common, log_format)
    began_s = time.monotonic()
    check_bind(metrics_port, health_port, web_port)
    ports = open_ports(metrics_port, health_port, bind, processes=processes)
    page_port = open_page_port(web_port, bind)
    lifeline: Lifeline | None = None
    if processes > 1 or max_hung is not None:
        supervisor = ProcessSupervisor(
            processes,
            is_burst=burst,
            shutdown_timeout_s=shutdown_timeout_ms / 1000 + (0 if mirror_url is None else _CATCH_UP_S),
            hopeless_codes=(FAILURE, USAGE, CANNOT_CONNECT),
            on_started=partial(log_event, logging.INFO),
            on_end=(lambda _place, _is_awaited: None) if ports is None else ports.ended,
        )
        outcome = supervisor.run()
        if isinstance(outcome, int):
            if supervisor.has_worked:
                log_end(began_s)
            sys.exit(outcome or (FAILURE if supervisor.was_forced else 0))
        lifeline = outcome
    try:
        queues = _own_queues(queue_names, app_path, common)
        if is_on_command_line(ctx, "concurrency"):
            for queue in queues:
                queue.concurrency = concurrency or 1
        mirror = (
            None
            if mirror_url is None
            else Mirror(mirror_url, redis=redis_url, prefix=common.prefix, project_id_type=id_type)
        )
        built_in = _built_in(queue_names, queues, has_app=app_path is not None)
        processors = build(ProcessorSettings.from_environment(os.environ)) if built_in else {}
    except ValueError as error:
        for line in getattr(error, "lines", ()):
            say(line)
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
    keep.settle(ctx, queues, keep_succeeded=keep_succeeded, keep_failed=keep_failed, job_timeout=job_timeout)
    for queue in queues:
        queue.max_hung = max_hung or queue.max_hung
        _trace(queue, tracing)
    place = 0 if lifeline is None else lifeline.place
    page = nullcontext() if page_port is None or place else _page(page_port, queues, mirror_url, id_type)
    work = _work(
        queues,
        processors,
        mirror,
        monitor=_monitor(ports, place),
        lifeline=lifeline,
        burst=burst,
        shutdown_timeout_ms=shutdown_timeout_ms,
        started_line=started_line(queues, processes, keep.line_of(queues)),
        began_s=began_s,
    )
    with page:
        code = run(work)
    sys.exit(code)


def _monitor(ports: MonitorPorts | None, place: int) -> WorkerMonitor | None:
    """Return the server of the ports for the process in this place; the first one logs their addresses."""
    if ports is not None and place == 0:
        for line in ports.shown:
            log_event(logging.INFO, line)
    return None if ports is None else ports.monitor(place)


def _page(port: socket, queues: Sequence[Queue], mirror_url: str | None, id_type: str) -> PageProcess:
    try:
        return PageProcess(port, PageTarget.of(queues, mirror_url, id_type))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _trace(queue: Queue, tracing: Literal["off", "link", "child"] | None) -> None:
    if tracing is None:
        return
    try:
        queue.telemetry.tracing = Tracing.of(queue.name, None if tracing == "off" else tracing)
    except ImportError as error:  # it names the extra
        raise click.ClickException(str(error)) from error


def _built_in(names: Sequence[str], own: Sequence[Queue], *, has_app: bool) -> list[str]:
    """Return the built-in queues to work on: with an app, only those that are named."""
    own_names = {queue.name for queue in own}
    wanted = names or (() if has_app else JOB_TYPES)
    return [name for name in dict.fromkeys(wanted) if name not in own_names]


def _own_queues(names: Sequence[str], app_path: str | None, common: Common) -> list[Queue]:
    """Return the queues of ``--app`` to work on. Raises ValueError if a queue has no handler."""
    own = [] if app_path is None else app.load_queues(app_path, common)
    enable()
    known = dict.fromkeys([*JOB_TYPES, *sorted(queue.name for queue in own)])
    for name in names:
        if name not in known:
            raise ValueError(
                f"no handler for a queue {name!r}; there are {', '.join(known)}; --app names your own"
            )
    return [queue for queue in own if not names or queue.name in names]


async def _work(
    queues: Sequence[Queue],
    processors: Mapping[str, Processor[Any]],
    mirror: Mirror | None,
    *,
    monitor: WorkerMonitor | None,
    lifeline: Lifeline | None,
    burst: bool,
    shutdown_timeout_ms: int,
    started_line: str,
    began_s: float,
) -> int:
    """Work on the queues, and write the mirror, until stopped or done; return the exit code."""
    for queue in queues:
        logs.follow(queue)
    if monitor is not None:
        monitor.start(queues)

    def hand_back(queue: Queue) -> None:
        log_event(logging.WARNING, HANDED_BACK, queue=queue.name)

    def start() -> None:
        if monitor is not None:
            monitor.works()
        if mirror is not None:
            mirror.start()
        if lifeline is not None:
            lifeline.report_ready(started_line)
        else:
            log_event(logging.INFO, started_line)

    process = WorkerProcess(queues, connect=connect, on_hand_back=hand_back)
    last_resort = LastResort(_GRACE_S, code=FAILURE, last_act=_log_late_close)
    numbers = STOPS if lifeline is None else (signal.SIGTERM,)
    with stop_signals(lambda _number: None, numbers=numbers):
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
    if lifeline is None:  # else the parent logs it
        log_end(began_s)
    return process.code


def _log_late_close() -> str:
    log_event(logging.ERROR, "processors or the mirror did not close in time: the process is ended")
    return ""


async def _catch_up(mirror: Mirror, timeout_s: float) -> None:
    """Let the mirror write what it can in time, and stop it; the rest stays in Redis for the next worker."""
    try:
        if mirror.is_running and not await mirror.flush(timeout_s):
            log_event(logging.WARNING, "the mirror is behind; the next worker will write the rest")
    except RedisError as error:
        log_event(logging.WARNING, "the mirror is behind", error=error)
    finally:
        await mirror.stop()
