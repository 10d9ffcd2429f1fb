"""When the pause watch reports to the worker, while ids are still being moved."""

from __future__ import annotations

from typing import Any

import pytest

from beeq.maintenance.pause_watch import PauseKeeper, PauseWatch
from beeq.protocol.pauses import Pause
from beeq.supervision.duty import Duty

PAUSE = Pause(1, "ada", "", None, everyone=True)
#: Calls of a look after the end of a pause by which jobs are taken in any case.
MOST = 50


@pytest.mark.parametrize("paused_calls", [0, 1, 80])
async def test_producers_keep_no_worker_from_its_jobs(
    make_queue: Any, monkeypatch: pytest.MonkeyPatch, paused_calls: int
) -> None:
    """However long the look has hidden jobs before, it shows them in so many calls, or lets them be taken."""
    replies = [(PAUSE, True)] * paused_calls + [(None, True)] * 200 + [(None, False)]
    made = 0

    async def apply(_keeper: PauseKeeper) -> tuple[Pause | None, bool]:
        nonlocal made
        made += 1
        return replies[made - 1]

    monkeypatch.setattr(PauseKeeper, "apply", apply)
    reported: list[tuple[int, Pause | None]] = []
    context = make_queue(is_worker=False)._parts.context
    watch = PauseWatch(context, on_change=lambda pause: reported.append((made, pause)))
    await watch._look(Duty("pause watch", patience_s=5, on_error=print, on_silent=print))
    began = [(1, PAUSE)] if paused_calls else []
    assert reported == [*began, (paused_calls + MOST, None)]
    assert made == len(replies)
