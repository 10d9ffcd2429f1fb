"""``beeq enqueue --bulk``: one job a line, saved in batches that grow with what has arrived.

Ids are printed in the order of the lines. A bad line is reported and the others go on.
"""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from typing import Any

from beeq import Job, Queue
from beeq.job_spec import JobSpec
from beeq_cli.console import say
from beeq_cli.fields import parse_object
from beeq_cli.running import CANNOT_CONNECT, FAILURE, explained

_CHUNK_BYTES = 1 << 20
_BATCH = 1000
#: Called with the number of bytes read and of jobs saved since the last call.
Report = Callable[[int, int], None]


@dataclass(slots=True)
class _Line:
    number: int
    job: Job
    job_id: str | None  # as the line has it; None: the queue's counter gives one


async def enqueue_lines(
    source: BufferedReader,
    queue: Queue,
    spec: JobSpec,
    *,
    print_id: Callable[[str], None],
    report: Report,
    is_quiet: bool,
) -> int:
    """Enqueue one job for each line of ``source``; return the exit code."""
    code = 0
    number = 0
    existed = 0
    lines: list[_Line] = []
    async for chunk in _chunks(source):
        for text in chunk:
            number += 1
            if not text.strip():
                continue
            try:
                data = spec.completed(parse_object(text, ""))
                job = spec.job(queue, data)
                lines.append(_Line(number, job, job.id))
            except (TypeError, ValueError) as error:
                say(f"line {number}: {error}")
                code = FAILURE
            if len(lines) >= _BATCH:
                failure, known = await _save(queue, lines, print_id)
                code, existed = failure or code, existed + known
                report(0, len(lines))
                lines = []
        if lines:
            failure, known = await _save(queue, lines, print_id)
            code, existed = failure or code, existed + known
        report(sum(map(len, chunk)), len(lines))
        lines = []
        if code == CANNOT_CONNECT:
            break
    if existed and not is_quiet:
        say(f"{existed} of the jobs existed already in {queue.name}, and are left as they are")
    return code


async def _save(queue: Queue, lines: list[_Line], print_id: Callable[[str], None]) -> tuple[int, int]:
    """Save the lines' jobs; return the exit code, and how many of their ids existed already."""
    errors = await queue.save_all([line.job for line in lines])
    code = existed = 0
    for line in lines:
        error = errors.get(line.job)
        if error is None:
            # Without an id after the save, the line's id existed already: not a failure, the job is there.
            existed += line.job.id is None
            print_id(line.job.id or line.job_id or "")
            continue
        message, failure = explained(error)
        say(f"line {line.number}: {message}")
        code = max(code, failure)
    return code, existed


async def _chunks(source: BufferedReader) -> AsyncIterator[list[bytes]]:
    """Yield the lines that have arrived, as they arrive.

    Each read has a daemon thread: one that waits for a silent pipe does not delay the end of the process.
    """
    loop = asyncio.get_running_loop()
    rest: list[bytes] = []
    while True:
        arrived: asyncio.Future[bytes | OSError] = loop.create_future()
        threading.Thread(target=_read, args=(source, loop, arrived), daemon=True).start()
        chunk = await arrived
        if isinstance(chunk, OSError):
            raise chunk
        if not chunk:
            break
        head, newline, tail = chunk.rpartition(b"\n")
        if newline:
            yield (b"".join(rest) + head).split(b"\n")
            rest = [tail] if tail else []
        else:
            rest.append(chunk)
    if rest:
        yield [b"".join(rest)]


def _read(source: BufferedReader, loop: asyncio.AbstractEventLoop, arrived: asyncio.Future[Any]) -> None:
    try:
        chunk: bytes | OSError = source.read1(_CHUNK_BYTES)
    except OSError as error:
        chunk = error
    if not loop.is_closed():
        loop.call_soon_threadsafe(_arrive, arrived, chunk)


def _arrive(arrived: asyncio.Future[Any], chunk: bytes | OSError) -> None:
    if not arrived.done():
        arrived.set_result(chunk)


@contextmanager
def progress(total_bytes: int | None, *, is_quiet: bool) -> Iterator[Report]:
    """Show how far the file is read, at a terminal."""
    if is_quiet or not sys.stderr.isatty():
        yield lambda _read_bytes, _saved: None
        return
    from rich.console import Console  # noqa: PLC0415 - only for a person
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - only for a person

    columns = (
        TextColumn("[bold]{task.fields[saved]:,}[/] jobs"),
        BarColumn(),
        TextColumn("{task.fields[rate]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=total_bytes, saved=0, rate="")

        def report(read_bytes: int, newly_saved: int) -> None:
            saved = bar.tasks[0].fields["saved"] + newly_saved
            elapsed_s = bar.tasks[0].elapsed
            bar.update(
                task, advance=read_bytes, saved=saved, rate=f"{saved / elapsed_s:,.0f}/s" if elapsed_s else ""
            )

        yield report
