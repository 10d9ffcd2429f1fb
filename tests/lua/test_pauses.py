"""A queue's pause: written, applied to what waits, ended; and what other scripts do with hidden ids."""

from __future__ import annotations

import json
from typing import Any

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench

pytestmark = pytest.mark.fast
LIFETIME_MS = 30_000
EVERYONE = '{"since":1,"until":null,"everyone":true,"by":"a","reason":""}'
BEEQ_ONLY = '{"since":1,"until":null,"everyone":false,"by":"a","reason":"\\"everyone\\":true"}'


def pause(bench: Bench, *, everyone: str = "", lasts_ms: int = 0, by: str = "a@h", reason: str = "") -> str:
    """Return the text that was written."""
    words = {"by": json.dumps(by), "reason": json.dumps(reason)}
    return str(
        bench.run(scripts.pause, everyone=everyone, lasts_ms=lasts_ms, lifetime_ms=LIFETIME_MS, **words)
    )


def apply(bench: Bench, *, ends: str = "", limit: int = 1000, in_steps: str = "") -> list[Any]:
    """Return pause, left, needs_steps, refusal."""
    answer: list[Any] = bench.run(scripts.apply_pause, ends=ends, limit=limit, in_steps=in_steps)
    return answer


class TestPause:
    def test_it_is_written_down_with_its_time(self, bench):
        earliest = bench.now_ms()
        text = pause(bench, by="ada@host", reason='say "when"\n%d')
        latest = bench.now_ms()
        assert bench.snapshot() == {"paused": text}
        written = json.loads(text)
        assert earliest <= written.pop("since") <= latest
        assert written == {"until": None, "everyone": False, "by": "ada@host", "reason": 'say "when"\n%d'}
        assert bench.redis.ttl(bench.keys.paused) == -1

    def test_one_with_an_end_goes_by_itself(self, bench):
        written = json.loads(pause(bench, lasts_ms=5000))
        assert written["until"] == written["since"] + 5000
        assert 4000 < bench.redis.pttl(bench.keys.paused) <= 5000

    def test_a_later_one_takes_its_place(self, bench):
        pause(bench, lasts_ms=5000)
        text = pause(bench, reason="again")
        assert bench.snapshot() == {"paused": text}
        assert bench.redis.ttl(bench.keys.paused) == -1

    def test_its_workers_are_told(self, bench):
        with bench.redis.pubsub() as ear:
            ear.subscribe(bench.keys.paused)
            assert ear.get_message(timeout=5)
            pause(bench)
            message = ear.get_message(timeout=5)
            assert message is not None
            assert message["data"] == "paused"

    def test_for_everyone_some_worker_has_to_live(self, bench):
        assert pause(bench, everyone="1") == ""
        bench.put(workers={"gone": bench.now_ms() - LIFETIME_MS - 1000})
        assert pause(bench, everyone="1") == ""
        assert bench.snapshot().keys() == {"workers"}
        bench.put(workers={"alive": bench.now_ms() - 1000})
        assert json.loads(pause(bench, everyone="1"))["everyone"] is True


class TestApply:
    def test_a_queue_that_is_not_paused_stays_as_it_is(self, bench):
        bench.put(waiting=["b", "a"])
        assert apply(bench) == [None, 0, 0, ""]
        assert bench.snapshot() == {"waiting": ["b", "a"]}

    def test_a_pause_of_beeqs_workers_hides_nothing(self, bench):
        bench.put(waiting=["b", "a"], paused=BEEQ_ONLY)
        assert apply(bench) == [BEEQ_ONLY, 0, 0, ""]
        assert bench.snapshot() == {"waiting": ["b", "a"], "paused": BEEQ_ONLY}

    @pytest.mark.parametrize("in_steps", ["", "1"])
    def test_a_pause_of_everyone_hides_what_waits(self, bench, in_steps):
        bench.put(waiting=["b", "a"], paused=EVERYONE)
        assert apply(bench, in_steps=in_steps) == [EVERYONE, 0, int(in_steps or 0), ""]
        assert bench.snapshot() == {"hidden": ["b", "a"], "paused": EVERYONE}
        assert apply(bench)[1] == 0
        bench.put(waiting=["d", "c"])
        assert apply(bench, in_steps=in_steps)[1] == 0
        assert bench.snapshot() == {"hidden": ["d", "c", "b", "a"], "paused": EVERYONE}

    def test_many_new_ids_are_hidden_in_steps(self, bench):
        bench.put(waiting=list("gfedc"), hidden=["b", "a"], paused=EVERYONE)
        assert [apply(bench, limit=2)[1] for _ in range(3)] == [3, 1, 0]
        assert bench.snapshot() == {"hidden": list("gfedcba"), "paused": EVERYONE}

    @pytest.mark.parametrize("paused", [None, BEEQ_ONLY])
    def test_hidden_ids_come_back_when_it_is_over(self, bench, paused):
        """Its time was over, or another pause has taken its place."""
        bench.put(waiting=["d", "c"], hidden=["b", "a"], **({"paused": paused} if paused else {}))
        assert apply(bench) == [paused, 0, 0, ""]
        state = bench.snapshot()
        state.pop("paused", None)
        assert state == {"waiting": ["d", "c", "b", "a"]}

    def test_it_ends_when_all_is_back_in_its_order(self, bench):
        bench.put(waiting=list("gfedc"), hidden=["b", "a"], paused=EVERYONE)
        left = []
        while not left or left[-1]:
            assert bench.redis.exists(bench.keys.paused)
            pause_text, count, _, refusal = apply(bench, ends="1", limit=2)
            left.append(count)
            assert (pause_text, refusal) == (EVERYONE, "")
        assert left == [3, 1, 0]
        assert bench.snapshot() == {"waiting": list("gfedcba")}
        assert apply(bench, ends="1") == [None, 0, 0, ""]

    def test_without_rename_they_come_back_in_steps(self, bench):
        bench.put(waiting=["h", "g"], hidden=list("fedcba"), paused=EVERYONE)
        bench.redis.expire(bench.keys.paused, 60)
        assert apply(bench, ends="1", limit=2, in_steps="1") == [EVERYONE, 4, 1, ""]
        assert bench.redis.get(bench.keys.paused) == EVERYONE.replace("true", "false"), "workers hide no more"
        assert 0 < bench.redis.ttl(bench.keys.paused) <= 60
        assert apply(bench, in_steps="1", limit=2)[1] == 2, "a worker helps"
        assert apply(bench, ends="1", limit=2, in_steps="1")[1] == 0
        assert bench.snapshot() == {"waiting": list("hgfedcba")}

    @pytest.mark.parametrize("in_steps", ["", "1"])
    def test_one_that_takes_its_place_meanwhile_stays(self, bench, in_steps):
        begin = EVERYONE.partition('"everyone"')[0]
        bench.put(waiting=list("dc"), hidden=["b", "a"], paused=EVERYONE)
        assert apply(bench, ends="1", limit=1, in_steps=in_steps)[1] > 0
        later = BEEQ_ONLY.replace("1", "2", 1)
        bench.put(paused=later)
        while (answer := apply(bench, ends=begin, limit=1, in_steps=in_steps))[1]:
            assert answer[0] == later
        assert bench.snapshot() == {"waiting": list("dcba"), "paused": later}

    @pytest.mark.parametrize("in_steps", ["", "1"])
    def test_it_is_known_by_the_begin_of_its_text(self, bench, in_steps):
        begin = EVERYONE.partition('"everyone"')[0]
        bench.put(waiting=list("dc"), hidden=["b", "a"], paused=EVERYONE)
        assert apply(bench, ends="1", limit=1, in_steps=in_steps)[1] > 0
        while apply(bench, ends=begin, limit=1, in_steps=in_steps)[1]:
            pass
        assert bench.snapshot() == {"waiting": list("dcba")}

    def test_its_end_is_told_once(self, bench):
        bench.put(paused=BEEQ_ONLY)
        with bench.redis.pubsub() as ear:
            ear.subscribe(bench.keys.paused)
            assert ear.get_message(timeout=5)
            apply(bench, ends="1")
            apply(bench, ends="1")
            bench.redis.publish(bench.keys.paused, "over")
            heard = [ear.get_message(timeout=5) for _ in range(2)]
            assert [message and message["data"] for message in heard] == ["resumed", "over"]

    @pytest.mark.parametrize("ends", ["", "1"])
    def test_a_hidden_key_of_another_type_hinders_nobody(self, bench, ends):
        bench.put(waiting=["a"], hidden="text", paused=EVERYONE)
        assert apply(bench, ends=ends) == [EVERYONE, 0, 0, ""]
        assert bench.snapshot()["waiting"] == ["a"]
        assert bool(bench.redis.exists(bench.keys.paused)) is not bool(ends)

    def test_waiting_of_another_type_loses_no_hidden_id(self, bench):
        bench.put(waiting="text", hidden=["a"])
        assert apply(bench) == [None, 0, 0, ""]
        assert bench.snapshot() == {"waiting": "text", "hidden": ["a"]}

    @pytest.mark.parametrize("text", ["", "1", '{"everyone":true}', '"everyone":true'])
    def test_what_somebody_has_set_by_hand_hides_nothing(self, bench, text):
        bench.put(waiting=["a"], paused=text)
        assert apply(bench)[0] == text
        assert bench.snapshot() == {"waiting": ["a"], "paused": text}

    def test_a_pause_of_another_type_is_none(self, bench):
        bench.put(waiting=["a"], paused=["x"])
        assert apply(bench) == [None, 0, 0, ""]


class TestHiddenIds:
    """To beeq's own calls they wait, in front of all of ``waiting``."""

    @pytest.fixture(autouse=True)
    def state(self, bench):
        bench.put(
            waiting=["f", "e"],
            hidden=["d", "c", "b", "a"],
            jobs={job_id: f"record {job_id}" for job_id in "abcdef"},
        )

    def test_they_are_counted_and_the_oldest_is_one_of_them(self, bench):
        counts = bench.run(scripts.count_jobs, lifetime_ms=LIFETIME_MS, with_oldest="1")
        assert (counts[0], counts[7]) == (6, "record a")

    def test_pages_go_through_both_lists(self, bench):
        def page(*anchors: str, offset: int = 0, count: int = 3) -> Any:
            found = [(anchor,) for anchor in anchors]
            return bench.run(
                scripts.page_ids, state="waiting", count=count, offset=offset, due="0", anchors=found
            )

        assert page() == [0, ["a", "b", "c"]]
        assert page("c", "b", "a", offset=3) == [3, ["d", "e", "f"]]
        assert page("f", "e", "d", offset=6) == [6, []]
        assert page(count=10) == [0, list("abcdef")]
        assert page("e", "d", "c", offset=5) == [5, ["f"]]
        bench.redis.rpop(bench.keys.hidden, 2)
        assert page("c", "b", "a", offset=3) == [1, ["d", "e", "f"]], "near its old place"
        assert page("e", offset=900) == [3, ["f"]], "searched in both"
        assert page("gone", offset=900) == [0, ["c", "d", "e"]]
        bench.redis.rename(bench.keys.hidden, "x" + bench.keys.hidden)
        assert page("e", offset=5) == [1, ["f"]]
        bench.redis.delete("x" + bench.keys.hidden)

    @pytest.mark.parametrize(
        ("first", "last"), [(0, 100), (0, -1), (1, 2), (2, 4), (3, 5), (4, 4), (-2, -1), (-5, -4)]
    )
    def test_places_count_through_both_lists(self, bench, first, last):
        whole = list("fedcba")
        expected = whole[first : None if last == -1 else last + 1]
        assert bench.run(scripts.waiting_ids, first=first, last=last) == expected
        bench.drop("hidden", "waiting")
        bench.put(waiting=whole)
        assert bench.run(scripts.waiting_ids, first=first, last=last) == expected

    @pytest.mark.parametrize(("first", "last"), [(6, 10), (3, 2), (-1, -2)])
    def test_places_that_are_not_there_have_no_ids(self, bench, first, last):
        assert bench.run(scripts.waiting_ids, first=first, last=last) == []

    @pytest.mark.parametrize(("job_id", "ahead"), [("a", 0), ("d", 3), ("e", 4), ("f", 5)])
    def test_a_job_waits_behind_all_before_it(self, bench, job_id, ahead):
        state, record, _, _, _, where, *_ = bench.run(scripts.inspect_job, job_id=job_id, longest=100)
        assert (state, record, where) == ("waiting", f"record {job_id}", ahead)

    def test_one_is_removed(self, bench):
        assert bench.run(scripts.remove_job, job_id="c", outbox_limit="0") == 1
        assert bench.snapshot()["hidden"] == ["d", "b", "a"]

    def test_one_is_cancelled(self, bench):
        cancelled = bench.run(
            scripts.cancel_job,
            job_id="c",
            keep='1:c"x"',
            keep_ms=60_000,
            memory_ms=60_000,
            events=bench.keys.events,
            message="m",
            outbox_limit="0",
        )
        assert cancelled == 1
        assert bench.snapshot()["hidden"] == ["d", "b", "a"]
        assert bench.heard() == [("events", "m")]

    def test_many_are_withdrawn_from_both_lists(self, bench):
        facts = bench.run(
            scripts.withdraw_jobs,
            state="waiting",
            start=0,
            span=6,
            keep_ms=60_000,
            memory_ms=60_000,
            events=bench.keys.events,
            outbox_limit="0",
            jobs=[(job_id, f"record {job_id}", "", "") for job_id in "acdf"] + [("b", "other", "", "")],
        )
        assert facts == [1, 1, 1, 1, 0]
        assert bench.snapshot() == {
            "waiting": ["e"],
            "hidden": ["b"],
            "jobs": {"b": "record b", "e": "record e"},
        }

    @pytest.mark.parametrize("start", [0, 2500, 9000])
    def test_those_far_from_their_places_are_withdrawn_too(self, bench, start):
        for at in range(0, 4000, 1000):
            bench.redis.lpush(bench.keys.waiting, *(f"w{n}" for n in range(at, at + 1000)))
            bench.redis.rpush(bench.keys.hidden, *(f"h{n}" for n in range(at, at + 1000)))
        facts = bench.run(
            scripts.withdraw_jobs,
            state="waiting",
            start=start,
            span=10,
            keep_ms=60_000,
            memory_ms=60_000,
            events=bench.keys.events,
            outbox_limit="0",
            jobs=[(job_id, f"record {job_id}", "", "") for job_id in "afe"],
        )
        assert facts == [1, 1, 1]
        assert bench.redis.lrange(bench.keys.hidden, 0, 3) == ["d", "c", "b", "h0"]
        assert (bench.redis.llen(bench.keys.waiting), bench.redis.llen(bench.keys.hidden)) == (4000, 4003)

    def test_what_a_worker_gives_back_runs_first_of_all(self, bench):
        bench.put(active=["g"], claims={"g": "t.0:1"})
        bench.redis.hset(bench.keys.jobs, "g", "record g")
        assert bench.run(scripts.give_back, outbox_limit="0", jobs=[("g", "t.0:1")]) == 1
        state = bench.snapshot()
        assert (state["hidden"], state["waiting"]) == (["d", "c", "b", "a", "g"], ["f", "e"])

    def test_a_stalled_jobs_second_copy_does_not_run_twice(self, bench):
        bench.put(active=["b", "b"], requeued={"b"}, stallBlock="t")
        reply = bench.run(scripts.requeue_stalled, token="t", lease_ms=5000, limit=10, outbox_limit="0")
        assert reply == [1, 2, []]
        assert "active" not in bench.snapshot()
