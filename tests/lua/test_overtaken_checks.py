"""Stall checks that come into each other: beeq's, in several calls, and Node's, in one; and beats between them.

A check's calls may be any time apart: the process is stopped, the line slow, ``active`` long. Time passes here by
hand: ``Scene.wait`` lets an interval go by.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench

LIVING = [f"living {n}" for n in range(12)]
DEAD = [f"dead {n}" for n in range(12)]


class Check:
    """One check of beeq, a call at a time."""

    def __init__(self, bench: Bench, token: str) -> None:
        self.requeued = Counter[str]()
        self._bench = bench
        self._steps = self._make(token)

    def step(self) -> bool:
        """Make the next call; return whether there was one left."""
        return next(self._steps, None) is not None

    def finish(self) -> None:
        while self.step():
            pass

    def _make(self, token: str) -> Iterator[str]:
        run = self._bench.run
        left = run(scripts.begin_stall_check, token=token, lease_ms=60_000)
        yield "begun"
        if left < 0:
            return
        while left > 0:
            holds, seen, ids = run(
                scripts.requeue_stalled, token=token, lease_ms=60_000, limit=min(5, left), outbox_limit="0"
            )
            self.requeued.update(ids)
            left = left - seen if holds and seen else 0
            yield "requeued"
        position = 0
        while position >= 0:
            position = run(
                scripts.mark_stalling,
                token=token,
                lease_ms=60_000,
                interval_ms=60_000,
                start=position,
                limit=5,
            )
            yield "marked"


class Scene:
    """Jobs of living and of dead workers; the living ones' beats; checks of both kinds."""

    def __init__(self, bench: Bench, node_source: str) -> None:
        self.bench = bench
        self._node_source = node_source
        self._checks = 0
        self.requeued_by_node = Counter[str]()
        ids = [*LIVING, *DEAD]
        random.Random(1).shuffle(ids)
        bench.put(active=ids, jobs=dict.fromkeys(ids, "r"), claims=dict.fromkeys(ids, "t.0:1"))

    def check(self) -> Check:
        self._checks += 1
        return Check(self.bench, f"token {self._checks}")

    def node_check(self) -> None:
        keys = self.bench.keys
        names = (keys.stall_block, keys.stalling, keys.waiting, keys.active)
        self.requeued_by_node.update(self.bench.redis.eval(self._node_source, len(names), *names, 60_000))

    def beat(self) -> None:
        self.bench.redis.srem(self.bench.keys.stalling, *LIVING)

    def wait(self) -> None:
        """Let an interval pass: the gate opens, and who lives has beaten twice."""
        self.bench.drop("stallBlock")
        self.beat()

    def assert_right(self, *checks: Check) -> None:
        """Nobody who lives went back, nobody twice, and who is dead went, after two more checks."""
        for _ in range(2):
            self.wait()
            last = self.check()
            last.finish()
            checks = (*checks, last)
        gone = sum((check.requeued for check in checks), self.requeued_by_node)
        assert gone == Counter(DEAD)
        state = self.bench.snapshot()
        assert sorted(state["active"]) == sorted(LIVING)
        assert sorted(state["waiting"]) == sorted(DEAD)


@pytest.fixture
def scene(bench: Bench, node_modules: Path) -> Scene:
    source = (node_modules / "bee-queue" / "lib" / "lua" / "checkStalledJobs.lua").read_text()
    scene = Scene(bench, source)
    scene.check().finish()  # all are marked
    scene.wait()
    return scene


@pytest.mark.parametrize("calls", range(1, 12))
@pytest.mark.parametrize("other", ["beeq", "Node"])
def test_a_check_that_is_overtaken_leaves_fresh_marks_alone(scene, calls, other):
    """It was stopped between any two of its calls, for longer than the interval; nobody has beaten since."""
    stopped = scene.check()
    for _ in range(calls):
        stopped.step()
    scene.wait()
    overtaking = scene.check()
    if other == "Node":
        scene.node_check()
    else:
        overtaking.finish()
    marks = scene.bench.snapshot().get("stalling", set())
    assert marks >= set(LIVING)
    stopped.finish()
    assert scene.bench.snapshot().get("stalling", set()) == marks
    scene.assert_right(stopped, overtaking)


@pytest.mark.parametrize("calls", range(1, 12))
def test_while_a_check_goes_on_nobody_else_comes_in(scene, calls):
    long = scene.check()
    for _ in range(calls):
        long.step()
    if scene.bench.redis.get(scene.bench.keys.stall_block) == "1":
        return  # it has ended
    other = scene.check()
    other.finish()
    scene.node_check()
    assert not other.requeued
    assert not scene.requeued_by_node
    long.finish()
    scene.assert_right(long)


@pytest.mark.parametrize("calls", range(1, 12))
def test_the_gate_opens_and_nobody_comes_the_check_ends(scene, calls):
    """Its process was stopped, the token's time is over: the next check makes up for it."""
    stopped = scene.check()
    for _ in range(calls):
        stopped.step()
    scene.bench.drop("stallBlock")
    before = scene.bench.snapshot()
    stopped.finish()
    assert scene.bench.snapshot() == before
    scene.assert_right(stopped)


@pytest.mark.parametrize("seed", range(40))
def test_in_any_order_of_calls_only_the_dead_go_back(scene, seed):
    """Up to four checks of beeq at once, each stopped and woken at random, Node's between them, and beats.

    The gate opens only after an interval without a call of the check that holds it, and then who lives has beaten.
    """
    chance = random.Random(seed)
    checks, running = list[Check](), list[Check]()
    for _ in range(80):
        match chance.choice(["begin", "step", "step", "step", "step", "node", "beat", "wait"]):
            case "begin" if len(running) < 4:
                checks.append(scene.check())
                running.append(checks[-1])
            case "step" if running:
                check = chance.choice(running)
                if not check.step():
                    running.remove(check)
            case "node":
                scene.node_check()
            case "beat":
                scene.beat()
            case "wait":
                scene.wait()
    for check in running:
        check.finish()
    scene.assert_right(*checks)
