"""Jobs' progress as it happens, on standard error: bars for a person, a few plain lines otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from beeq_cli.console import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PLAIN_STEP_PERCENT = 25


class Show(Protocol):
    """Is told what happens to jobs, by name."""

    def begin(self, name: str) -> None:
        """Note that the job was put into its queue."""

    def progress(self, name: str, percent: Any) -> None:
        """Note how far it says it is."""

    def end(self, name: str, *, is_well: bool) -> None:
        """Note how it ended."""


@contextmanager
def show_for(*, is_person: bool, is_quiet: bool) -> Iterator[Show]:
    """Return the show that suits whoever looks on; it ends with the block."""
    if is_quiet or not is_person:
        yield _Lines(is_quiet=is_quiet)
        return
    from rich.console import Console  # noqa: PLC0415 - only for a person
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn  # noqa: PLC0415 - only for a person

    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", style="cyan"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield _Bars(progress)


class _Lines:
    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._said: dict[str, int] = {}

    def _say(self, line: str) -> None:
        if not self._is_quiet:
            say(line)

    def begin(self, name: str) -> None:
        self._said[name] = 0
        self._say(f"{name}: queued")

    def progress(self, name: str, percent: Any) -> None:
        if isinstance(percent, int) and percent - self._said[name] >= _PLAIN_STEP_PERCENT:
            self._said[name] = percent
            self._say(f"{name}: {percent} %")

    def end(self, name: str, *, is_well: bool) -> None:
        self._say(f"{name}: {'done' if is_well else 'failed'}")


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def begin(self, name: str) -> None:
        self._tasks[name] = self._progress.add_task(name, total=100, state="queued")

    def progress(self, name: str, percent: Any) -> None:
        if isinstance(percent, int | float):
            self._progress.update(self._tasks[name], completed=percent, state=f"{percent:.0f} %")

    def end(self, name: str, *, is_well: bool) -> None:
        state = "[green]done[/]" if is_well else "[red]failed[/]"
        self._progress.update(self._tasks[name], completed=100, state=state)
