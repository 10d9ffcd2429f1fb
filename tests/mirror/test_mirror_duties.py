"""The mirror's writer and reconciler, broken once in each way: each is back, and says so in the log."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from beeq import DutyEnded, DutySilent
from beeq.mirror.reconciler import Reconciler
from beeq.mirror.writer import MirrorWriter
from tests.mirror.conftest import Scene
from tests.support.breaking import WAYS, Breaker

RUNS: dict[str, tuple[type[Any], str]] = {
    "mirror writer": (MirrorWriter, "run"),
    "mirror reconciler": (Reconciler, "run"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RUNS)
async def test_a_part_that_breaks_is_back_and_mirrors(
    scene: Scene, monkeypatch, caplog, eventually, name, way
):
    monkeypatch.setattr("beeq.mirror.mirror.MOST_SILENCE_S", 4.0)  # a read waits for 2 s
    breaker = Breaker(monkeypatch, *RUNS[name])
    mirror = scene.mirror()
    queue = scene.service.queues["webhook-processing"]
    await queue.create_job({"n": 1}).set_id("first").save()
    await eventually(lambda: "first" in scene.documents())
    with caplog.at_level(logging.ERROR):
        breaker.break_it(way)
        await eventually(lambda: {duty.name: duty.restarts for duty in mirror.duties()}[name] == 1)
    (logged,) = [record.exc_info[0] for record in caplog.records if record.exc_info]
    assert logged is {"raises": ZeroDivisionError, "hangs": DutySilent}.get(way, DutyEnded)
    await eventually(lambda: {duty.name: duty.state for duty in mirror.duties()}[name] == "running")
    await queue.create_job({"n": 2}).set_id("second").save()
    await eventually(lambda: "second" in scene.documents())
    assert mirror.is_running
