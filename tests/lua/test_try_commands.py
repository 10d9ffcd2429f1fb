"""``lua/try_commands.lua``: which commands are refused, found on a key that is gone afterwards."""

from __future__ import annotations

import pytest

from beeq.redis import scripts
from beeq.redis.rights import PARTS, trials_of
from tests.lua.bench import Bench

pytestmark = pytest.mark.more_rights("the bench is the default user")


def tried(bench: Bench, *commands: str) -> list[str]:
    before = bench.snapshot()
    failed = bench.run(scripts.try_commands, lifetime_ms=1000, commands=[(words,) for words in commands])
    assert bench.snapshot() == before
    assert bench.heard() == []
    return list(failed)


def test_who_may_do_everything_is_refused_nothing(bench):
    bench.put(waiting=["1"], jobs={"1": "record"}, active=["2"], stalling={"2"}, delayed={"3": 7})
    assert tried(bench, *trials_of(*PARTS)) == []


def test_one_refusal_keeps_no_other_command_from_being_tried(bench):
    failed = tried(bench, "NOSUCH KEY", "HGET KEY f", "NOSUCH KEY x", "TIME")
    assert failed[::2] == ["NOSUCH KEY", "NOSUCH KEY x"]
    assert all("command" in text for text in failed[1::2])


def test_a_key_that_an_earlier_call_has_left_is_used_and_goes(bench):
    bench.put(tried=["a list"])
    assert bench.run(scripts.try_commands, lifetime_ms=1000, commands=[("LPUSH KEY x",)]) == []
    assert bench.snapshot() == {}


@pytest.mark.parametrize("command", ["DEL KEY", "UNLINK KEY"])
def test_what_is_made_after_the_key_was_deleted_goes_as_well(bench, command):
    assert tried(bench, command, "LPUSH KEY x") == []
