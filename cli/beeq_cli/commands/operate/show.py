"""``beeq show``: one job: its state, its data, and its attempts."""

import sys
from collections.abc import Callable
from typing import Any

import click
import orjson

from beeq import JobDetails
from beeq.job import Job
from beeq.protocol.attempts import FailedAttempt
from beeq.protocol.codec import dumps_shown
from beeq_cli.commands.operate.lines import age, moment
from beeq_cli.commands.operate.targets import JobTarget, QueueFinder, only_one, queue_option
from beeq_cli.console import complain, print_json, print_line
from beeq_cli.options import Common, common_options, examples, option
from beeq_cli.quantities import show_duration
from beeq_cli.running import FAILURE, run

#: Adds a line of a name and a text.
Add = Callable[[str, str], None]
#: Options that are shown elsewhere.
_SHOWN_ELSEWHERE = ("timestamp", "stacktraces", "delay")


@click.command(
    short_help="Show one job: where it is, and what came of its attempts.",
    epilog=examples("beeq show 17"),
)
@click.argument("job_id", metavar="ID")
@queue_option
@option("--json", "as_json", is_flag=True, help="Print an object.")
@common_options()
@click.pass_obj
def show(common: Common, /, job_id: str, queue_name: str | None, as_json: bool) -> None:
    """Show the job ID: where it is, options, data, how it ended, and its failed attempts, newest first.

    The id finds its queue by itself. With -v every trace is shown, not the newest only.
    """
    finder = QueueFinder(common, queue_name)
    sys.exit(run(_show(finder, job_id, as_json=as_json, is_verbose=common.is_verbose)))


async def _show(finder: QueueFinder, job_id: str, *, as_json: bool, is_verbose: bool) -> int:
    async with finder:
        target = only_one(job_id, await finder.having(job_id, is_gone_too=True))
    if target is None:
        complain(f"there is no job {job_id}")
        return FAILURE
    if as_json:
        print_json(details_object(target))
    else:
        for line in details_lines(target, is_verbose=is_verbose):
            print_line(line)
    return 0


def details_object(target: JobTarget) -> dict[str, Any]:
    """Return what ``--json`` prints of a job; what is not known is null."""
    details = target.details
    job, ended = details.job, details.ended
    return {
        "id": target.job_id,
        "queue": target.queue.name,
        "state": details.state,
        "created": details.created_ms or None,
        "due": details.due_ms,
        "ahead": details.ahead,
        "deliveries": details.deliveries,
        "data": None if job is None else job.data,
        "options": None if job is None else job.options,
        "progress": None if job is None else job.progress,
        "result": None if ended is None else ended.value,
        "error": details.problem or (None if ended is None or ended.error is None else str(ended.error)),
        "attempts": [
            {"worker": each.worker, "start": each.started_ms, "end": each.ended_ms, "error": each.error}
            for each in details.attempts
        ],
    }


def details_lines(target: JobTarget, *, is_verbose: bool) -> list[str]:
    """Return the lines for a person, not yet escaped."""
    details = target.details
    job, ended = details.job, details.ended
    lines = [f"job {target.job_id} of {target.queue.name}: {details.state}"]

    def add(name: str, text: str) -> None:
        lines.append(f"{name:<10} {text}")

    _add_place(details, add)
    if details.problem:
        add("problem", details.problem)
    if job is not None:
        _add_job(job, add, lines)
    if ended is not None and ended.error is not None:
        add("error", str(ended.error).partition("\n")[0])
    elif ended is not None:
        add("result", dumps_shown(ended.value).decode(errors="replace"))
    if details.attempts:
        count = len(details.attempts)
        lines.append("1 failed attempt:" if count == 1 else f"{count} failed attempts, the newest first:")
        lines += map(_attempt_line, details.attempts)
    if job is not None:
        lines += _trace_lines(job, is_verbose=is_verbose)
    return lines


def _add_place(details: JobDetails[Job], add: Add) -> None:
    if details.created_ms:
        add("created", f"{moment(details.created_ms)} ({age(details.created_ms)})")
    if details.due_ms is not None:
        add("due", moment(details.due_ms))
    if details.state == "waiting":
        add("ahead", "more than 250 000 jobs" if details.ahead is None else f"{details.ahead} jobs")
    if details.deliveries:
        add("taken", f"{details.deliveries} times")


def _add_job(job: Job, add: Add, lines: list[str]) -> None:
    options = {name: value for name, value in job.options.items() if name not in _SHOWN_ELSEWHERE}
    if options:
        add("options", dumps_shown(options).decode(errors="replace"))
    if job.progress:
        add("progress", dumps_shown(job.progress).decode(errors="replace"))
    lines.append("data")
    lines += [f"  {line}" for line in _indented(job.data).split("\n")]


def _indented(value: Any) -> str:
    try:
        return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    except TypeError:  # an integer beyond 64 bits, a lone surrogate, too many levels
        return dumps_shown(value).decode(errors="replace")


def _attempt_line(attempt: FailedAttempt) -> str:
    lasted = show_duration(max(0, attempt.ended_ms - attempt.started_ms))
    return f"  {moment(attempt.ended_ms)}  after {lasted}  {attempt.worker}  {attempt.error}"


def _trace_lines(job: Job, *, is_verbose: bool) -> list[str]:
    traces = [trace if isinstance(trace, str) else "" for trace in job.options["stacktraces"]]
    lines = []
    for number, trace in enumerate(traces if is_verbose else traces[:1]):
        lines.append("newest trace:" if number == 0 else "the one before:")
        lines += [f"  {line}" for line in trace.rstrip("\n").split("\n")]
    if len(traces) > 1 and not is_verbose:
        lines.append(f"and {len(traces) - 1} earlier (-v)")
    return lines
