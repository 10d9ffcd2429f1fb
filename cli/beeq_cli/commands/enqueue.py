"""``beeq enqueue``: one job, or with ``--bulk`` one a line. Prints ids; with ``--wait`` the result."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from beeq import Queue
from beeq.job_spec import JobOptions, JobSpec
from beeq.jobs import JOB_TYPES
from beeq.settings import parse_duration
from beeq_cli.commands import bulk, waiting
from beeq_cli.console import print_id, print_json, say
from beeq_cli.fields import read_fields
from beeq_cli.options import (
    Common,
    common_options,
    examples,
    option,
    parsed,
    read_mongo_url,
    wait_replicas_option,
)
from beeq_cli.quantities import parse_backoff, parse_moment
from beeq_cli.running import opened, run

_FOR_EVER = -1
#: No field looks so: it has a "=".
_LIKE_DURATION = re.compile(r"[0-9][0-9.]*[A-Za-z]*")


class _EnqueueCommand(click.Command):
    """A command whose ``--wait`` may have a duration, or none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give a bare ``--wait`` its value, "for ever", unless the next word is meant as a duration."""
        end = args.index("--") if "--" in args else len(args)
        for at, (word, following) in enumerate(pairwise([*args[:end], ""])):
            if word == "--wait" and _LIKE_DURATION.fullmatch(following) is None:
                args[at] = f"--wait={_FOR_EVER}"
        return super().parse_args(ctx, args)


def _parse_wait(text: str) -> int:
    return _FOR_EVER if text == str(_FOR_EVER) else parse_duration(text)


@click.command(
    cls=_EnqueueCommand,
    short_help="Put a job into a queue.",
    epilog=examples(
        "beeq enqueue greetings name=Ada age:=36 --retries 2 --backoff exponential:2s",
        "beeq enqueue greetings name=Bob --delay 5m --timeout 30s",
        "beeq enqueue greetings name=Dan --wait=2s || echo 'no worker is running'",
        """echo '{"name": "Cyd"}' | beeq enqueue greetings --bulk -""",
    ),
)
@click.argument("queue_name", metavar="QUEUE")
@click.argument("words", metavar="[FIELD]...", nargs=-1)
@option("--id", "job_id", metavar="ID", help="The job's id; one that exists is left as it is.")
@option(
    "--delay",
    "delay_ms",
    metavar="D",
    callback=parsed(parse_duration),
    help="Not before D from now (500ms, 2s, 5m, 1h, 1d).",
)
@option(
    "--at",
    metavar="ISO",
    callback=parsed(parse_moment),
    help="Not before this moment; without a zone it is local time.",
)
@option("--retries", metavar="N", type=click.IntRange(min=0), help="Further attempts after a failed one.")
@option(
    "--backoff",
    metavar="B",
    callback=parsed(parse_backoff),
    help="immediate, fixed:D or exponential:D, such as exponential:2s.",
)
@option(
    "--timeout",
    "timeout_ms",
    metavar="D",
    callback=parsed(parse_duration),
    help="The longest attempt (30s, 5m); 0 is no limit.",
)
@option(
    "--wait",
    "wait_ms",
    metavar="[=D]",
    callback=parsed(_parse_wait),
    help="Wait for the result, for up to D (30s, 5m), and print it.",
)
@option("--bulk", "bulk_path", metavar="FILE|-", help="One job for each line, a JSON object.")
@option("--json", "as_json", is_flag=True, help="Print an object with id and queue for each job.")
@wait_replicas_option()
@common_options()
@click.pass_obj
def enqueue(  # noqa: PLR0917 - one parameter an option
    common: Common,
    queue_name: str,
    words: tuple[str, ...],
    job_id: str | None,
    delay_ms: int | None,
    at: datetime | None,
    retries: int | None,
    backoff: str | tuple[str, int] | None,
    timeout_ms: int | None,
    wait_ms: int | None,
    bulk_path: str | None,
    as_json: bool,
    wait_replicas: int,
) -> None:
    """Put a job into QUEUE and print its id, or with --wait its result; the id is on stderr then.

    A FIELD is key=text, key:=json, @file.json, or - for JSON on standard input; later ones override.
    The queues ai-generation, media-processing, video-assembly and webhook-processing check their fields.
    """
    if delay_ms is not None and at is not None:
        raise click.UsageError("--delay and --at exclude each other")
    if bulk_path is not None and (words or job_id is not None or wait_ms is not None):
        raise click.UsageError("--bulk goes with no fields, --id or --wait")
    if not queue_name:
        raise click.UsageError("QUEUE is empty")
    terms = JobOptions(
        job_id=job_id or None,
        retries=retries,
        backoff=backoff,
        timeout=timeout_ms,
        delay_until=at if delay_ms is None else timedelta(milliseconds=delay_ms),
    )
    spec = JobSpec(queue_name, terms)
    queue = Queue(
        queue_name,
        redis=common.redis_url(),
        prefix=common.prefix,
        is_worker=False,
        ensure_scripts=False,
        # These serve --wait only; workers raise delayed jobs.
        get_events=wait_ms is not None,
        store_jobs=wait_ms is not None,
        activate_delayed_jobs=wait_ms is not None,
        mirrored=queue_name in JOB_TYPES and read_mongo_url(None) is not None,
        wait_replicas=wait_replicas,
    )
    try:
        spec.check(queue)
        data = (
            spec.completed(read_fields(words, read_stdin=sys.stdin.buffer.read)) if bulk_path is None else {}
        )
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    if bulk_path is None:
        code = run(
            _enqueue_one(queue, spec, data, wait_ms=wait_ms, as_json=as_json, is_quiet=common.is_quiet)
        )
    else:
        with (
            _opened(bulk_path) as (source, size_bytes),
            bulk.progress(size_bytes, is_quiet=common.is_quiet) as report,
        ):
            code = run(_enqueue_bulk(queue, spec, source, report, as_json=as_json, is_quiet=common.is_quiet))
    sys.exit(code)


async def _enqueue_one(
    queue: Queue, spec: JobSpec, data: dict[str, Any], *, wait_ms: int | None, as_json: bool, is_quiet: bool
) -> int:
    async with opened(queue):
        job = await spec.save(queue, data)
        job_id = job.saved_id()
        if not (job.is_new or is_quiet):
            say(f"job {job_id} exists already in {spec.queue_name}, and is left as it is")
        if wait_ms is None:
            _print_id(spec.queue_name, job_id, as_json=as_json)
            return 0
        if job.is_new and not is_quiet:
            say(f"job {job_id}")
        timeout_ms = None if wait_ms == _FOR_EVER else wait_ms
        return await waiting.print_result(job, queue, timeout_ms, as_json=as_json, is_quiet=is_quiet)


async def _enqueue_bulk(
    queue: Queue,
    spec: JobSpec,
    source: BufferedReader,
    report: bulk.Report,
    *,
    as_json: bool,
    is_quiet: bool,
) -> int:
    say_id = partial(_print_id, spec.queue_name, as_json=as_json)
    async with opened(queue):
        return await bulk.enqueue_lines(
            source, queue, spec, print_id=say_id, report=report, is_quiet=is_quiet
        )


def _print_id(queue_name: str, job_id: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": job_id, "queue": queue_name})
    else:
        print_id(job_id)


@contextmanager
def _opened(path: str) -> Iterator[tuple[BufferedReader, int | None]]:
    """Open the file of ``--bulk``; yield it with its size, if it has one."""
    if path == "-":
        yield sys.stdin.buffer, None  # type: ignore[misc]  # typeshed knows it as BinaryIO
        return
    try:
        source = Path(path).open("rb")  # noqa: SIM115 - closed below
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise click.UsageError(f"{path!r} cannot be read: {reason}") from None
    with source:
        yield source, os.fstat(source.fileno()).st_size or None
