"""Results of dropped jobs: Redis forgets them by itself, in time, and knows which job's they are."""

from __future__ import annotations

import pytest

from beeq.redis import scripts
from tests.lua.bench import Bench, End

pytestmark = pytest.mark.fast

LONGEST_MS = 2**53 - 1
#: How long a key outlives its last entry.
GRACE_MS = 1000


def drop(bench: Bench, keep_ms: int, *ends: End) -> list[int]:
    """Let jobs end whose records go; return the facts."""
    for end in ends:
        bench.put(jobs={end.job_id: "r"}, active=[end.job_id], claims={end.job_id: "t:1"})
    return record(bench, keep_ms, *ends)


def record(bench: Bench, keep_ms: int, *ends: End) -> list[int]:
    facts: list[int] = bench.run(
        scripts.exchange,
        events="",
        earlier_delayed=bench.keys.earlier_delayed,
        keep_ms=keep_ms,
        drop_succeeded="1",
        drop_failed="1",
        outbox_limit="0",
        max_bytes=1_000_000,
        active_length="",
        is_mixed="",
        token="T",
        free=0,
        wanted_ahead=0,
        ahead_ms=60_000,
        fetched="",
        is_started="",
        outcomes=[end.arguments() for end in ends],
    )[0]
    return facts


def cancel(bench: Bench, keep_ms: int, job_id: str) -> None:
    bench.put(jobs={job_id: "r"}, waiting=[job_id])
    bench.run(
        scripts.cancel_job,
        job_id=job_id,
        keep="5:c1",
        keep_ms=keep_ms,
        memory_ms=1000,
        events=bench.keys.events,
        message="m",
        outbox_limit="0",
    )


def lifetimes(bench: Bench) -> dict[str, int]:
    """Return the TTL of each key that holds results, in ms."""
    return {name: bench.redis.pttl(bench.key(name)) for name in bench.snapshot() if name.endswith("Results")}


@pytest.mark.parametrize("keep_ms", [1000, 600_000, 86_400_000 * 365 * 30])
@pytest.mark.parametrize("how", [drop, cancel])
def test_a_key_lives_as_long_as_its_last_result_may(bench, how, keep_ms):
    how(bench, keep_ms, End("1", keep="5:s1") if how is drop else "1")
    ((_, left_ms),) = lifetimes(bench).items()
    assert keep_ms < left_ms <= 2 * keep_ms + GRACE_MS


@pytest.mark.parametrize("keep_ms", [LONGEST_MS, LONGEST_MS - 1, 2**52])
@pytest.mark.parametrize("how", [drop, cancel])
def test_a_time_of_any_length_is_kept_as_a_whole_number(bench, how, keep_ms):
    how(bench, keep_ms, End("1", keep="5:s1") if how is drop else "1")
    ((_, left_ms),) = lifetimes(bench).items()
    assert left_ms >= keep_ms - 1_000_000
    due_ms, text = bench.passing()["1"]
    assert due_ms >= keep_ms
    assert text in ("5:s1", "5:c1")


@pytest.mark.parametrize("how", [drop, cancel])
async def test_the_shortest_time_is_over_at_once(bench, how, eventually):
    how(bench, 1, End("1", keep="5:s1") if how is drop else "1")
    await eventually(lambda: lifetimes(bench) == {})


def test_the_longest_lived_result_of_a_key_decides(bench):
    for keep_ms in (1000, 600_000, 1000):
        drop(bench, keep_ms, End(f"{keep_ms}", keep="5:s1"))
    assert max(lifetimes(bench).values()) > 500_000
    now_ms = bench.now_ms()
    short, long = bench.passing()["1000"][0], bench.passing()["600000"][0]
    assert (short - now_ms <= 1000, long - now_ms > 500_000) == (True, True)


def test_a_result_past_its_time_is_not_told_though_its_key_lives(bench):
    drop(bench, 600_000, End("long", keep="5:s1"))
    (name,) = lifetimes(bench)
    bench.put(**{name: {"short": f"{bench.now_ms() - 1}:5:s2", "next": f"{bench.now_ms() + 60_000}:5:s3"}})
    reported = [
        bench.run(scripts.read_outcome, job_id=job_id, longest=1000, with_record="")[1]
        for job_id in ("long", "short", "next")
    ]
    assert reported == ["5:s1", None, "5:s3"]


@pytest.mark.parametrize("how", [drop, cancel])
def test_a_key_whose_turn_comes_again_is_dropped_whole(bench, how):
    """All of it has outlived its time; to delete it entry by entry, as at its expiry, may take long."""
    for name in ("evenResults", "oddResults"):
        bench.put(**{name: {"old": "1000:5:s1"}})
        bench.redis.pexpire(bench.key(name), GRACE_MS - 1)
    how(bench, 3_600_000, End("1", keep="5:s1") if how is drop else "1")
    (name,) = (name for name, left_ms in lifetimes(bench).items() if left_ms > GRACE_MS)
    assert bench.snapshot()[name].keys() == {"1"}


@pytest.mark.parametrize("old", ["results", "evenResults", "oddResults"])
@pytest.mark.parametrize("keep", ["7:s2", ""])
def test_of_two_jobs_of_one_id_the_later_ones_result_is_left(bench, old, keep):
    """The earlier one's entry may be where this period does not write."""
    text = "5:s1" if old == "results" else f"{bench.now_ms() + 60_000}:5:s1"
    bench.put(**{old: {"1": text, "x": text}})
    assert drop(bench, 60_000, End("1", keep=keep)) == [1]
    assert bench.run(scripts.read_outcome, job_id="1", longest=1000, with_record="")[1] == (keep or None)
    assert bench.run(scripts.read_outcome, job_id="x", longest=1000, with_record="")[1] == "5:s1"


@pytest.mark.parametrize("old", ["results", "evenResults", "oddResults"])
def test_a_cancelled_job_leaves_nothing_of_an_earlier_one(bench, old):
    text = "5:s1" if old == "results" else f"{bench.now_ms() + 60_000}:5:s1"
    bench.put(**{old: {"1": text}})
    cancel(bench, 60_000, "1")
    assert bench.run(scripts.read_outcome, job_id="1", longest=1000, with_record="")[1] == "5:c1"


def test_a_dropped_outcome_sent_again_is_known(bench):
    """The reply to the first call was lost."""
    end = End("1", keep='5:s"a:b"')
    assert drop(bench, 60_000, end) == [1]
    before = bench.snapshot()
    assert record(bench, 60_000, end) == [2]
    assert record(bench, 60_000, End("1", keep='15:s"a:b"'), End("1", keep='5:s"b"')) == [0, 0]
    assert bench.snapshot() == before


def test_many_dropped_results_share_a_call_and_a_key(bench):
    ends = [End(f"{n}", "failed" if n % 2 else "succeeded", keep=f"5:s{n}") for n in range(500)]
    assert drop(bench, 60_000, *ends) == [1] * 500
    assert {job_id: text for job_id, (_, text) in bench.passing().items()} == {
        end.job_id: end.keep for end in ends
    }
