"""Jobs' progress as it happens, on standard error: bars for a person, a few plain lines otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from beeq_cli.console import say

if TYPE_CHECKING:
    from rich.progress import TaskID

#: Called with a job's name, how far it is in percent, and its state: queued, "30 %", done or failed.
Show = Callable[[str, float, str], None]

_PLAIN_STEP_PERCENT = 25
_COLOURED = {"done": "[green]done[/]", "failed": "[red]failed[/]"}


@contextmanager
def progress_shown(*, is_quiet: bool) -> Iterator[Show]:
    """Yield what shows progress while the block lasts."""
    if is_quiet:
        yield lambda _name, _percent, _state: None
        return
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console  # noqa: PLC0415 - only for a person
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn  # noqa: PLC0415 - only for a person

    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", style="cyan"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[state]}"),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def show(name: str, percent: float, state: str) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=100, state=state)
            bars.update(tasks[name], completed=percent, state=_COLOURED.get(state, state))

        yield show


def _lines() -> Show:
    shown: dict[str, float] = {}

    def show(name: str, percent: float, state: str) -> None:
        if not state.endswith("%") or percent - shown[name] >= _PLAIN_STEP_PERCENT:
            shown[name] = percent
            say(f"{name}: {state}")

    return show
