"""``beeq watch``: what happens to one job, as it happens."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Any

import click

from beeq import JobNews, Queue, RedisRefused
from beeq.protocol.codec import dumps_shown
from beeq.settings import parse_duration
from beeq_cli.commands.operate.lines import moment
from beeq_cli.commands.operate.targets import QueueFinder, only_one, queue_option
from beeq_cli.console import complain, print_json, print_line, safe, say
from beeq_cli.options import Common, common_options, examples, option, parsed
from beeq_cli.running import FAILURE, opened, queues_to_look_into, run

#: Shows one piece of news of the job.
Show = Callable[[JobNews], None]
_LONGEST_TEXT = 1000
#: The longest progress other than a number, in characters, behind the bar.
_LONGEST_PROGRESS = 60
_GONE = "removed, or finished by a peer that kept nothing"


@click.command(
    short_help="Watch one job until it has ended.",
    epilog=examples("beeq watch 17", "beeq watch 17 --timeout 5m --json"),
)
@click.argument("job_id", metavar="ID")
@queue_option
@click.option(
    "--timeout",
    "timeout_ms",
    metavar="D",
    callback=parsed(parse_duration),
    help="Watch for up to D (30s, 5m); else as long as it takes.",
)
@option("--json", "as_json", is_flag=True, help="Print an object for each event.")
@common_options()
@click.pass_obj
def watch(
    common: Common, /, job_id: str, queue_name: str | None, timeout_ms: int | None, as_json: bool
) -> None:
    """Show progress, failed attempts and the end of the job ID as they happen, on beeq's workers and Node's.

    Exits with 0 if it has succeeded, with 1 if it failed, was cancelled, is gone, or D is over. Ctrl-C leaves
    the job. With -q only the exit code tells.
    """
    finder = QueueFinder(common, queue_name)
    sys.exit(run(_watch(finder, common, job_id, timeout_ms, as_json=as_json)))


async def _watch(
    finder: QueueFinder, common: Common, job_id: str, timeout_ms: int | None, *, as_json: bool
) -> int:
    async with finder, AsyncExitStack() as stack:
        target = only_one(job_id, await finder.having(job_id, is_gone_too=True))
        if target is None:
            complain(f"there is no job {job_id}")
            return FAILURE
        name = target.queue.name
        queue = await stack.enter_async_context(_hearing(target.queue, common))
        news = await stack.enter_async_context(aclosing(queue.watch_job(job_id, timeout_ms)))
        show = stack.enter_context(_shown(job_id, name, as_json=as_json, is_quiet=common.is_quiet))
        try:
            async for each in news:
                show(each)
                if each.is_final:
                    return 0 if each.event == "succeeded" else FAILURE
        except TimeoutError as error:
            complain(str(error))
        except asyncio.CancelledError:  # Ctrl-C
            say(f"job {job_id} is left in {name}; no longer watching it")
        return FAILURE


@asynccontextmanager
async def _hearing(queue: Queue, common: Common) -> AsyncIterator[Queue]:
    """Open the queue again, so that it hears events; without that right, only by reading Redis."""
    (hearing,) = queues_to_look_into([queue.name], common, get_events=True, store_jobs=True)
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(opened(hearing))
        except RedisRefused:
            hearing = queue
        yield hearing


@contextmanager
def _shown(job_id: str, queue_name: str, *, as_json: bool, is_quiet: bool) -> Iterator[Show]:
    """Yield a function that shows news: as a bar for a person, as lines or objects elsewhere."""
    if as_json:
        yield lambda news: print_json(_object(job_id, queue_name, news))
    elif is_quiet:
        yield lambda _news: None
    elif sys.stdout.isatty():
        with _bar(job_id, queue_name) as show:
            yield show
    else:
        yield lambda news: print_line(_line(job_id, queue_name, news))


def _object(job_id: str, queue_name: str, news: JobNews) -> dict[str, Any]:
    return {
        "id": job_id,
        "queue": queue_name,
        "event": news.event,
        "value": news.value,
        "time": news.at_ms,
    }


def _line(job_id: str, queue_name: str, news: JobNews) -> str:
    text = _text(news)
    return f"job {job_id} of {queue_name}: {news.event}{text and f': {text}'}"


def _text(news: JobNews) -> str:
    """Return the text beside the event's name, not yet escaped."""
    value = news.value
    if news.event == "gone":
        return _GONE
    if news.event == "waiting":
        return "" if value is None else f"{value} {'job runs' if value == 1 else 'jobs run'} before it"
    if news.event == "delayed":
        return "" if value is None else f"due {moment(value)}"
    if value is None:
        return ""
    if news.event in ("progress", "succeeded"):
        text = dumps_shown(value).decode(errors="replace")
    else:
        text = str(value).partition("\n")[0]
    return text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"


@contextmanager
def _bar(job_id: str, queue_name: str) -> Iterator[Show]:
    """Yield a function that shows progress as a bar, and other news as lines above it."""
    from rich.console import Console  # noqa: PLC0415 - only for a person
    from rich.progress import BarColumn, Progress, TextColumn  # noqa: PLC0415 - only for a person
    from rich.text import Text  # noqa: PLC0415 - only for a person

    name, shown = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[shown]}"))
    with Progress(name, BarColumn(), shown, console=Console(), transient=True) as bar:
        task = bar.add_task(safe(f"job {job_id}"), total=100.0, shown="")

        def show(news: JobNews) -> None:
            if news.event != "progress":
                bar.console.print(Text(safe(_line(job_id, queue_name, news))))
                return
            is_percent = isinstance(news.value, int | float) and not isinstance(news.value, bool)
            text = f"{news.value:g} %" if is_percent else safe(_text(news))
            bar.update(task, completed=news.value if is_percent else None, shown=text[:_LONGEST_PROGRESS])

        yield show
