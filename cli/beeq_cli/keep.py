"""Which ended jobs a worker keeps, and how long a job may take: ``--keep-…``, ``--job-timeout``."""

from collections.abc import Callable, Sequence

import click

from beeq import Queue
from beeq.settings import Keep, Settings, duration_text, parse_duration
from beeq_cli.options import Decorated, is_on_command_line, option, parsed

#: The default. It drops only jobs that such workers have run: Node's jobs stay.
_DEFAULTS = {
    "keep_succeeded": Keep(age="7d", count=10_000, own=True),
    "keep_failed": Keep(age="30d", count=10_000, own=True),
}


def keep_options() -> Callable[[Decorated], Decorated]:
    """Return ``--keep-succeeded``, ``--keep-failed`` and ``--job-timeout``."""
    decorators = [
        option(
            "--job-timeout",
            metavar="D",
            callback=parsed(parse_duration),
            help="How long an attempt may take whose job says nothing of a timeout: 30s, 5m [0: no limit].",
        ),
        option(
            "--keep-failed",
            metavar="KEEP",
            callback=parsed(Keep.of),
            help=f"The same for failed jobs [{_DEFAULTS['keep_failed']}].",
        ),
        option(
            "--keep-succeeded",
            metavar="KEEP",
            callback=parsed(Keep.of),
            help="Succeeded jobs to keep, by age, number or both: 7d, 10000, 7d,10000, or all. The others "
            "go, the oldest first, those that Node has run, too; with own at the end only those that "
            f"workers with such an option have run [{_DEFAULTS['keep_succeeded']}].",
        ),
    ]

    def decorate(command: Decorated) -> Decorated:
        for decorator in decorators:
            command = decorator(command)
        return command

    return decorate


def settle(
    ctx: click.Context,
    queues: Sequence[Queue],
    *,
    keep_succeeded: Keep | None,
    keep_failed: Keep | None,
    job_timeout: int | None,
) -> None:
    """Set what the queues keep: by the command line, else by their own settings, else the default.

    The environment counts as a default, too.
    """

    def wins(name: str) -> bool:
        return is_on_command_line(ctx, name)

    for queue in queues:
        made = queue.settings
        succeeded = (wins("keep_succeeded") and keep_succeeded) or made.keep_succeeded or keep_succeeded
        failed = (wins("keep_failed") and keep_failed) or made.keep_failed or keep_failed
        has_timeout = job_timeout is not None and (wins("job_timeout") or not made.job_timeout)
        try:
            queue.use(
                keep_succeeded=succeeded or _DEFAULTS["keep_succeeded"],
                keep_failed=failed or _DEFAULTS["keep_failed"],
                job_timeout=job_timeout if has_timeout and job_timeout is not None else made.job_timeout,
            )
        except RuntimeError as error:  # the app's module has opened its queue
            raise click.UsageError(str(error)) from None


def line_of(queues: Sequence[Queue]) -> str:
    """Return the log's line on what the queues keep, and on their jobs' timeouts, if there are any."""
    names: dict[str, list[str]] = {}
    for queue in queues:
        names.setdefault(_line_of(queue.settings), []).append(queue.name)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{', '.join(named)}: {line}" for line, named in names.items())


def _line_of(settings: Settings) -> str:
    line = f"keeps {_kept(settings.keep_succeeded, 'succeeded')} and {_kept(settings.keep_failed, 'failed')}"
    return f"{line}, job timeout {duration_text(settings.job_timeout)}" if settings.job_timeout else line


def _kept(keep: Keep | None, state: str) -> str:
    if keep is None or keep.is_all:
        return f"all {state} jobs"
    count = "" if keep.count is None else f"{keep.count} "
    age = "" if keep.age_ms is None else f" for {duration_text(keep.age_ms)}"
    return f"{count}{state} jobs{age}{' (its own)' if keep.own else ''}"
