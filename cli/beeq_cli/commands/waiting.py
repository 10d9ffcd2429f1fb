"""Waits for one job for a person: reports soon if the queue has no worker, and shows the job's progress."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from beeq import Job, JobFailed, Queue, RedisError
from beeq.environment import EMBEDDED
from beeq_cli.console import complain, print_json, safe, say
from beeq_cli.running import FAILURE

#: How long a job waits before a missing worker is reported.
_PATIENCE_S = 1.0
#: The longest progress other than a number, in characters.
_MOST_SHOWN = 60


async def print_result(
    job: Job, queue: Queue, timeout_ms: int | None, *, as_json: bool, is_quiet: bool
) -> int:
    """Wait for the job's end, print its result, and return the exit code.

    ``timeout_ms`` None: no limit. Interrupted, it prints the id, and leaves the job alone.
    """
    watch = asyncio.create_task(_say_if_nobody_works(queue, is_quiet=is_quiet))
    try:
        with _progress(job, is_quiet=is_quiet):
            result = await job.result(timeout_ms)
    except (JobFailed, TimeoutError) as error:
        complain(f"job {job.id} failed: {error}" if isinstance(error, JobFailed) else str(error))
        return FAILURE
    except asyncio.CancelledError:  # Ctrl-C
        say(f"job {job.id} is left in {queue.name}; no longer waiting for it")
        return FAILURE
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
    print_json({"id": job.id, "queue": queue.name, "result": result} if as_json else result)
    return 0


async def _say_if_nobody_works(queue: Queue, *, is_quiet: bool) -> None:
    """Report after a moment if no beeq worker lives, or the queue is paused.

    A Node worker is known only by the jobs that run.
    """
    await asyncio.sleep(_PATIENCE_S)
    try:
        stats, pause = await asyncio.gather(queue.stats(), queue.paused())
    except RedisError:
        return  # the wait for the result reports it
    if pause is not None and not is_quiet:
        say(f"{queue.name} is paused {pause}")
    if not (stats.workers or stats.active or is_quiet):
        is_folders_own = queue.connector.shown.startswith(EMBEDDED)
        hint = "; a worker of another folder has another server" if is_folders_own else ""
        say(f"no worker is taking jobs from {queue.name}{hint}")


@contextmanager
def _progress(job: Job, *, is_quiet: bool) -> Iterator[None]:
    """Show the job's progress, at a terminal."""
    if is_quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # noqa: PLC0415 - only for a person
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - only for a person

    name, shown = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[shown]}"))
    with Progress(name, BarColumn(), shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(safe(f"job {job.id}"), total=100.0, shown="")

        def show(progress: Any) -> None:
            is_percent = isinstance(progress, int | float) and not isinstance(progress, bool)
            text = f"{progress:g} %" if is_percent else safe(str(progress))
            bar.update(task, completed=progress if is_percent else None, shown=text[:_MOST_SHOWN])

        if job.progress:
            show(job.progress)
        job.on("progress", show)
        try:
            yield
        finally:
            job.off("progress", show)
