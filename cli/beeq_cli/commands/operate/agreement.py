"""Confirmation and progress of large changes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from beeq import BulkCounts
from beeq.operations.many import OnProgress


def _is_person_there() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def refuse_unasked(
    verb: str, *, does: str = "acts on many jobs", to_see: str = "--dry-run to see them"
) -> None:
    """Raise a usage error if there is no terminal to ask at."""
    if not _is_person_there():
        raise click.UsageError(f"nobody can be asked here before {verb} {does}: add --yes, or {to_see}")


def agreed(question: str) -> bool:
    """Ask for confirmation; no answer means no."""
    return click.confirm(question, err=True)


@contextmanager
def progress(*, is_quiet: bool) -> Iterator[OnProgress]:
    """Show the progress, at a terminal."""
    if is_quiet or not sys.stderr.isatty():
        yield lambda _counts: None
        return
    from rich.console import Console  # noqa: PLC0415 - only for a person

    with Console(stderr=True).status("looking") as status:

        def report(counts: BulkCounts) -> None:
            status.update(f"{counts.seen:,} looked at, {counts.matched:,} meant, {counts.done:,} done")

        yield report
