"""Adding jobs: ids, places, announcements, and nothing left behind by a refusal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import redis

from beeq.redis import scripts
from tests.lua.bench import Bench

pytestmark = pytest.mark.fast


def add(bench: Bench, *jobs: tuple[str, str, object]) -> list[Any]:
    """Add jobs as a producer does; return the ids as text, None for one that exists, or an error."""
    is_plain = all(not job_id and due_ms == "" for job_id, _, due_ms in jobs)
    return ids_of(bench, jobs, is_plain=is_plain)


def ids_of(bench: Bench, jobs: Sequence[tuple[str, str, object]], *, is_plain: bool) -> list[Any]:
    reply: Any = bench.run(
        scripts.add_jobs,
        earlier_delayed="" if is_plain else bench.keys.earlier_delayed,
        outbox_limit="0",
        jobs=[(record,) for _, record, _ in jobs] if is_plain else jobs,
    )
    if isinstance(reply, int):
        reply = range(reply - len(jobs) + 1, reply + 1)
    return [str(each) if isinstance(each, int) else each for each in reply]


@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("taken", [(), ("1",), ("3", "7"), ("9",)])
def test_records_alone_get_the_ids_that_whole_jobs_get(bench, count, taken):
    jobs = [("", f"r{n}", "") for n in range(count)]
    snapshots = []
    for is_plain in (False, True):
        bench.put(jobs=dict.fromkeys(("old", *taken), "x"))
        assert len(set(ids_of(bench, jobs, is_plain=is_plain))) == count
        snapshots.append(bench.snapshot())
        bench.drop("id", "jobs", "waiting")
    assert snapshots[0] == snapshots[1]


def test_ids_that_follow_one_another_are_told_by_the_last(bench):
    def reply() -> Any:
        records = [(f"r{n}",) for n in range(3)]
        return bench.run(scripts.add_jobs, earlier_delayed="", outbox_limit="0", jobs=records)

    assert reply() == 3
    bench.put(jobs={"5": "taken"})
    assert reply() == [4, 6, 7]


def test_the_first_job_of_a_queue_is_number_one_and_waits(bench):
    assert add(bench, ("", "record", "")) == ["1"]
    assert bench.snapshot() == {"id": "1", "jobs": {"1": "record"}, "waiting": ["1"]}
    assert bench.heard() == []


def test_many_jobs_wait_in_the_order_given(bench):
    assert add(bench, ("", "r1", ""), ("a", "r2", ""), ("", "r3", "")) == ["1", "a", "2"]
    assert bench.snapshot() == {
        "id": "2",
        "jobs": {"1": "r1", "a": "r2", "2": "r3"},
        "waiting": ["2", "a", "1"],
    }


def test_new_jobs_wait_behind_those_there(bench):
    bench.put(id="7", jobs={"7": "r"}, waiting=["7"])
    assert add(bench, ("", "new", "")) == ["8"]
    assert bench.snapshot()["waiting"] == ["8", "7"]


def test_a_chosen_id_needs_no_counter(bench):
    assert add(bench, ("é:😀", "record", "")) == ["é:😀"]
    assert bench.snapshot() == {"jobs": {"é:😀": "record"}, "waiting": ["é:😀"]}


def test_an_id_that_exists_is_refused_and_nothing_is_written(bench):
    bench.put(jobs={"a": "old"}, succeeded={"a"}, claims={"a": "t:1"}, results={"a": "1:s5"})
    before = bench.snapshot()
    assert add(bench, ("a", "new", "")) == [None]
    assert add(bench, ("a", "new", 9_000_000_000_000)) == [None]
    assert bench.snapshot() == before
    assert bench.heard() == []


def test_of_two_jobs_with_one_id_in_one_call_the_first_wins(bench):
    assert add(bench, ("a", "first", ""), ("b", "other", ""), ("a", "second", "")) == ["a", "b", None]
    assert bench.snapshot() == {"jobs": {"a": "first", "b": "other"}, "waiting": ["b", "a"]}


def test_an_automatic_id_passes_over_those_that_are_taken(bench):
    """bee-queue's job would silently not exist."""
    bench.put(jobs={"1": "x", "2": "x", "4": "x"})
    assert add(bench, ("", "r", ""), ("", "r", "")) == ["3", "5"]
    assert bench.snapshot() == {
        "id": "5",
        "jobs": {"1": "x", "2": "x", "3": "r", "4": "x", "5": "r"},
        "waiting": ["5", "3"],
    }


def test_automatic_ids_pass_over_taken_ones_and_lose_no_number(bench):
    bench.put(id="1", jobs={"2": "x", "5": "x", "6": "x"}, delayed={"x": 5000})
    added = add(bench, ("", "a", ""), ("", "b", 6000), ("", "c", ""), ("", "d", ""))
    assert added == ["3", "4", "7", "8"]
    assert bench.snapshot() == {
        "id": "8",
        "jobs": {"2": "x", "3": "a", "4": "b", "5": "x", "6": "x", "7": "c", "8": "d"},
        "waiting": ["8", "7", "3"],
        "delayed": {"x": 5000, "4": 6000},
    }


@pytest.mark.parametrize("counter", [10**14 - 2, 10**15, 2**53 - 4])
def test_many_automatic_ids_stay_whole_numbers_however_large(bench, counter):
    bench.put(id=str(counter))
    ids = [str(counter + n) for n in (1, 2, 3)]
    assert add(bench, *[("", "r", "")] * 3) == ids
    assert bench.snapshot() == {
        "id": ids[-1],
        "jobs": dict.fromkeys(ids, "r"),
        "waiting": ids[::-1],
    }


def test_an_automatic_id_passes_over_one_taken_in_the_same_call(bench):
    assert add(bench, ("1", "chosen", ""), ("", "automatic", "")) == ["1", "2"]


@pytest.mark.parametrize("counter", [10**14 - 1, 10**14, 10**15, 2**53 - 2])
def test_automatic_ids_stay_whole_numbers_however_large(bench, counter):
    """Lua's own text of 10^14 is 1e+14."""
    bench.put(id=str(counter))
    assert add(bench, ("", "r", "")) == [str(counter + 1)]
    assert bench.snapshot() == {
        "id": str(counter + 1),
        "jobs": {str(counter + 1): "r"},
        "waiting": [str(counter + 1)],
    }


def test_what_an_earlier_job_of_the_id_left_behind_is_dropped(bench):
    """No old worker may finish the new job, and no old result may pass for its own."""
    bench.put(claims={"a": "old:3", "b": "t:1"}, results={"a": "1:s5", "b": "1:s6"})
    bench.put(**{key: {"a": "9:1:s5", "b": "9:1:s6"} for key in ("evenResults", "oddResults")})
    add(bench, ("a", "record", ""))
    assert bench.snapshot() == {
        "jobs": {"a": "record"},
        "waiting": ["a"],
        "claims": {"b": "t:1"},
        "results": {"b": "1:s6"},
        "evenResults": {"b": "9:1:s6"},
        "oddResults": {"b": "9:1:s6"},
    }


def test_a_delayed_job_due_first_is_announced_as_its_caller_says(bench):
    assert add(bench, ("a", "record", "9000000000000")) == ["a"]
    assert bench.snapshot() == {"jobs": {"a": "record"}, "delayed": {"a": 9_000_000_000_000}}
    assert bench.heard() == [("earlierDelayed", "9000000000000")]


def test_a_delayed_job_not_due_first_is_not_announced(bench):
    bench.put(delayed={"x": 5000})
    add(bench, ("a", "record", 6000))
    assert bench.snapshot() == {"jobs": {"a": "record"}, "delayed": {"x": 5000, "a": 6000}}
    assert bench.heard() == []


@pytest.mark.parametrize(("job_id", "heard"), [("a", [("earlierDelayed", "5000")]), ("z", [])])
def test_of_equal_due_times_the_first_id_by_text_is_the_head(bench, job_id, heard):
    bench.put(delayed={"m": 5000})
    add(bench, (job_id, "record", 5000))
    assert bench.snapshot()["delayed"] == {"m": 5000, job_id: 5000}
    assert bench.heard() == heard


def test_of_many_delayed_jobs_only_the_new_head_is_announced(bench):
    add(bench, ("a", "r", 7000), ("b", "r", 5000), ("c", "r", 5000), ("d", "r", 9000))
    assert bench.heard() == [("earlierDelayed", "5000")]
    assert bench.snapshot()["delayed"] == {"a": 7000, "b": 5000, "c": 5000, "d": 9000}


def test_a_large_number_that_is_due_first_is_announced(bench):
    bench.put(id=str(10**14 - 1))
    assert add(bench, ("", "r", 5000)) == [str(10**14)]
    assert bench.heard() == [("earlierDelayed", "5000")]


def test_jobs_for_now_and_for_later_share_a_call(bench):
    assert add(bench, ("", "now", ""), ("", "later", 5000), ("", "now too", "")) == ["1", "2", "3"]
    assert bench.snapshot() == {
        "id": "3",
        "jobs": {"1": "now", "2": "later", "3": "now too"},
        "waiting": ["3", "1"],
        "delayed": {"2": 5000},
    }
    assert bench.heard() == [("earlierDelayed", "5000")]


def test_a_record_of_any_bytes_arrives_unchanged(bench, valkey):
    record = bytes(range(256)) * 10
    with valkey.sync_client(decode_responses=False) as client:
        keys = [
            bench.key(name)
            for name in (
                *("id", "jobs", "waiting", "delayed", "claims"),
                *("results", "evenResults", "oddResults", "outbox", "attempts"),
            )
        ]
        client.eval(
            scripts.add_jobs.source, len(keys), *keys, bench.keys.earlier_delayed, "0", "a", record, ""
        )
        assert client.hget(bench.keys.jobs, "a") == record
        bench.drop("jobs")


def test_a_batch_of_the_largest_size_is_added_whole(bench):
    ids = add(bench, *(("", f"r{n}", "" if n % 2 else 5000 + n) for n in range(500)))
    assert ids == [str(n + 1) for n in range(500)]
    state = bench.snapshot()
    assert (len(state["jobs"]), len(state["waiting"]), len(state["delayed"])) == (500, 250, 250)


@pytest.mark.parametrize("wrong", ["waiting", "delayed"])
@pytest.mark.parametrize("jobs", [
    [("a", "r", ""), ("b", "r", 5000)],
    [("b", "r", 5000), ("a", "r", "")],
])  # fmt: skip
def test_a_place_of_the_wrong_type_leaves_nothing_behind(bench, wrong, jobs):
    """A record without a place would block its id for ever."""
    bench.put(**{wrong: "of the wrong type"}, jobs={"old": "r"})
    before = bench.snapshot()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        add(bench, *jobs)
    assert bench.snapshot() == before
    assert bench.heard() == []
    bench.drop(wrong)
    assert add(bench, *jobs) == [job[0] for job in jobs]


@pytest.mark.parametrize("wrong", ["jobs", "claims", "results", "evenResults", "oddResults"])
def test_another_key_of_the_wrong_type_leaves_nothing_behind(bench, wrong):
    bench.put(**{wrong: "of the wrong type"})
    before = bench.snapshot()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        add(bench, ("a", "r", ""), ("b", "r", 5000))
    assert bench.snapshot() == before
    assert bench.heard() == []


#: Counters that give no number: what they hold, and what is wrong with it.
ODD_COUNTERS = [
    ("text", "not an integer"),
    ("", "not an integer"),
    ("1.5", "not an integer"),
    (" 7", "not an integer"),
    ("9" * 30, "not an integer"),
    (["7"], "wrong kind of value"),
    ({"7"}, "wrong kind of value"),
    (str(2**53 - 1), "at its end"),
    (str(2**53), "at its end"),
    (str(2**62 + 1), "at its end"),
    (str(2**63 - 2), "at its end"),
    (str(2**63 - 1), "overflow"),
    (str(-(2**53) - 1), "at its end"),
    (str(-(2**63)), "at its end"),
]


@pytest.mark.real_redis("fakeredis cannot return an error inside a list")
@pytest.mark.parametrize(("counter", "fault"), ODD_COUNTERS)
@pytest.mark.parametrize("count", [1, 2, 500])
def test_where_the_counter_cannot_count_it_says_why(bench, counter, fault, count):
    bench.put(id=counter)
    for error in add(bench, *[("", "r", "")] * count):
        assert isinstance(error, redis.ResponseError)
        assert f"the counter of automatic ids, {bench.keys.id}, cannot count (" in str(error)
        assert fault in str(error)
    assert bench.snapshot() == {"id": counter}


@pytest.mark.real_redis("fakeredis cannot return an error inside a list")
@pytest.mark.parametrize(("counter", "_fault"), ODD_COUNTERS)
def test_jobs_with_ids_of_their_own_need_no_counter(bench, counter, _fault):
    bench.put(id=counter, jobs={"old": "r"})
    ids = add(bench, ("", "r", ""), ("a", "r", ""), ("", "r", 5000), ("old", "r", ""), ("b", "r", 5000))
    assert [isinstance(each, redis.ResponseError) or each for each in ids] == [True, "a", True, None, "b"]
    assert bench.snapshot() == {
        "id": counter,
        "jobs": {"old": "r", "a": "r", "b": "r"},
        "waiting": ["a"],
        "delayed": {"b": 5000},
    }


@pytest.mark.real_redis("fakeredis cannot return an error inside a list")
@pytest.mark.parametrize("more", [[], [("own", "r", "")]])
def test_the_last_numbers_are_given_and_the_rest_refused(bench, more):
    bench.put(id=str(2**53 - 4))
    ids = add(bench, *more, *[("", "r", "")] * 6)[len(more) :]
    last = [str(2**53 - n) for n in (3, 2, 1)]
    assert ids[:3] == last
    assert all(isinstance(error, redis.ResponseError) for error in ids[3:])
    state = bench.snapshot()
    assert state["id"] == last[-1]
    assert state["jobs"].keys() == {*last, *(job_id for job_id, _, _ in more)}
    assert len(state["waiting"]) == 3 + len(more)


def test_a_negative_counter_counts_as_in_node(bench):
    bench.put(id="-3")
    assert add(bench, *[("", "r", "")] * 4) == ["-2", "-1", "0", "1"]
    assert bench.snapshot()["id"] == "1"


@pytest.mark.real_redis("fakeredis counts no commands")
@pytest.mark.parametrize("count", [1, 2, 500])
@pytest.mark.parametrize("more", [[], [("own", "r", "")]])
def test_imported_ids_ahead_of_the_counter_are_leapt_over(bench, count, more):
    """Stepping over each of them, in one call, would hold up every client of the server."""
    bench.redis.hset(bench.keys.jobs, mapping={str(n): "imported" for n in range(1, 100_001)})
    before = int(bench.redis.info("commandstats")["cmdstat_incr"]["calls"])
    ids = add(bench, *more, *[("", "r", "")] * count)[len(more) :]
    assert ids == [str(100_000 + n) for n in range(1, count + 1)]
    steps = int(bench.redis.info("commandstats")["cmdstat_incr"]["calls"]) - before
    assert steps < 1100 + count
    assert bench.redis.get(bench.keys.id) == ids[-1]
    assert bench.redis.hlen(bench.keys.jobs) == 100_000 + count + len(more)


def test_scattered_imported_ids_never_lose_a_job(bench):
    taken = {n for n in range(1, 20_000) if n % 7 and n % 11}
    bench.redis.hset(bench.keys.jobs, mapping={str(n): "imported" for n in taken})
    ids = [int(job_id) for _ in range(8) for job_id in add(bench, *[("", "r", "")] * 500)]
    assert ids == sorted(set(ids) - taken)
    assert len(ids) == 4000
    assert bench.redis.llen(bench.keys.waiting) == 4000


@pytest.mark.real_redis("fakeredis cannot return an error inside a list")
def test_numbers_that_are_all_taken_up_to_the_end_are_refused(bench):
    end = 2**53 - 1
    bench.redis.hset(bench.keys.jobs, mapping={str(end - n): "imported" for n in range(5000)})
    bench.put(id=str(end - 5000))
    (error,) = add(bench, ("", "r", ""))
    assert isinstance(error, redis.ResponseError)
    assert bench.redis.llen(bench.keys.waiting) == 0
    assert bench.redis.hlen(bench.keys.jobs) == 5000


def test_jobs_for_now_do_not_care_for_the_delayed_ones(bench):
    bench.put(delayed="of the wrong type")
    assert add(bench, ("a", "r", "")) == ["a"]
    assert bench.snapshot() == {"jobs": {"a": "r"}, "waiting": ["a"], "delayed": "of the wrong type"}
