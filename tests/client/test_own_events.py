"""Messages are passed on in order, once it is known whose they are; what cannot be known is not kept for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from beeq import QueueClosed, RedisRefused, RedisUnavailable
from beeq.client.events import own_events
from beeq.client.events.own_events import OwnEvents
from beeq.protocol.events import encode_event
from beeq.protocol.keys import Keys
from beeq.redis.keyspace import FRESH_S, Keyspace

pytestmark = pytest.mark.fast

ONE = b"# Keyspace\r\ndb3:keys=2,expires=0,avg_ttl=0\r\n"
TWO = b"# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\ndb1:keys=2,expires=0,avg_ttl=0\r\n"
FORBIDDEN = RedisRefused("NOPERM this user has no permissions to run the 'info' command")


class Redis:
    """Gives prepared answers: to INFO, to EXISTS, and the verdict on each message in turn."""

    def __init__(self, listed: Any = TWO, own: Any = 3) -> None:
        self.listed, self.own = listed, own
        self.verdicts: list[Any] = []
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def call(self, command: str, *_words: Any, repeatable: bool, goes_ahead: bool) -> Any:
        assert repeatable
        assert goes_ahead
        await self.gate.wait()
        self.asked.append(command)
        return self._told(self.listed if command == "INFO" else self.own)

    async def run(self, script: Any, command: bytes) -> Any:
        await self.gate.wait()
        self.asked.append(script.name)
        count = (command.count(b"\r\n$") - 2 - 1 - len(script.keys) - 2) // 3
        verdicts = [self._told(self.verdicts.pop(0)) for _ in range(count)]
        return [part for verdict in verdicts for part in verdict]

    @staticmethod
    def _told(answer: Any) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Bench:
    def __init__(self, redis: Redis, *, known: set[str] | None = None, name: str = "mail") -> None:
        self.redis = redis
        self.delivered: list[bytes] = []
        self.errors: list[BaseException] = []
        self.lost = 0
        self.ended: set[str] = set()
        self.tasks: list[asyncio.Task[None]] = []
        self.own_events = OwnEvents(
            redis,  # type: ignore[arg-type]  # all that is asked of a pipeline
            Keys("bq", name),
            deliver=self.delivered.append,
            is_known=lambda job_id: job_id in (known or set()),
            has_ended=self.ended.__contains__,
            spawn=lambda checking: self.tasks.append(asyncio.get_running_loop().create_task(checking)),
            on_lost=self._lose,
            report_error=self.errors.append,
        )

    def _lose(self) -> None:
        self.lost += 1

    def hear(self, *ids: str, event: str = "succeeded") -> list[bytes]:
        messages = [encode_event(job_id, event, job_id) for job_id in ids]
        for message in messages:
            self.own_events.hear(message)
        return messages

    async def done(self) -> None:
        await asyncio.wait_for(asyncio.gather(*self.tasks), 10)


@pytest.mark.parametrize(
    ("listed", "own", "is_alone"),
    [
        (ONE, 1, True),
        (b"# Keyspace\ndb0:keys=1\n", 1, True),
        (ONE, 0, False),
        (TWO, 1, False),
        (b"# Keyspace\r\n", 0, False),
        (b"# Keyspace\r\n", 5, False),
        (b"", 5, False),
        (None, 5, False),
        (FORBIDDEN, 5, False),
        (ONE, FORBIDDEN, False),
    ],
)
async def test_a_database_is_alone_only_if_redis_says_so(listed: Any, own: Any, is_alone: bool) -> None:
    keyspace = Keyspace(Redis(listed, own), Keys("bq", "mail"))  # type: ignore[arg-type]
    await keyspace.look()
    assert keyspace.is_alone is is_alone
    assert keyspace.may_ask is not isinstance(listed, RedisRefused)
    assert keyspace.age_s < 60
    keyspace.doubt()
    assert not keyspace.is_alone
    assert keyspace.may_ask


async def test_in_one_database_a_message_is_passed_on_where_it_is_read() -> None:
    bench = Bench(Redis(ONE))
    first = bench.hear("1")
    assert bench.delivered == []
    await bench.done()
    assert bench.delivered == first
    later = bench.hear("2", "3")
    assert bench.delivered == first + later
    assert bench.redis.asked == ["INFO", "EXISTS"]


async def test_a_look_is_believed_for_a_moment_only() -> None:
    bench = Bench(Redis(ONE))
    bench.hear("1")
    await bench.done()
    bench.redis.listed = TWO
    bench.redis.verdicts = [(0, b"")]
    await asyncio.sleep(FRESH_S)
    bench.hear("2")
    await bench.done()
    assert len(bench.delivered) == 1


async def test_only_what_the_keys_agree_with_is_passed_on() -> None:
    bench = Bench(Redis(TWO), known={"4"})
    bench.redis.verdicts = [(1, b"a"), (0, b""), (2, b""), (2, b""), (1, b"")]
    messages = bench.hear("1", "2", "3", "4", "5")
    await bench.done()
    assert bench.delivered == [messages[0], messages[3], messages[4]]


async def test_a_job_saved_while_its_id_is_checked_is_another_job() -> None:
    known = {"4"}
    bench = Bench(Redis(TWO), known=known)
    bench.redis.verdicts = [(0, b""), (2, b"")]
    bench.hear("1")
    await bench.done()
    bench.redis.gate.clear()
    bench.hear("2")
    await asyncio.sleep(0)  # the script is asked, and finds nothing of this id
    known.add("2")
    bench.redis.gate.set()
    await bench.done()
    assert bench.redis.asked[-1] == "check_events"
    assert bench.delivered == []


async def test_the_process_knows_which_databases_its_queues_use() -> None:
    first, second, other = (Bench(Redis(ONE), name=name) for name in ("both", "both", "other"))
    for bench, database in ((first, 0), (second, 0), (other, 1)):
        bench.own_events.opened_in("server", database)
        bench.hear("1")
        await bench.done()
        assert len(bench.delivered) == 1
    other.own_events.opened_in("another server", 2)
    second.own_events.opened_in("server", 1)
    for bench in (first, second, other):
        bench.redis.verdicts = [(0, b"")]
        bench.hear("2")
        await bench.done()
    assert [len(bench.delivered) for bench in (first, second, other)] == [1, 1, 2]


async def test_an_end_is_passed_on_once_for_each_run() -> None:
    bench = Bench(Redis(TWO))
    bench.redis.verdicts = [(1, b"a"), (1, b"a"), (1, b"b"), (1, b""), (1, b"")]
    bench.hear(*"11111")
    await bench.done()
    assert len(bench.delivered) == 4


async def test_progress_after_the_end_is_another_databases() -> None:
    bench = Bench(Redis(TWO))
    bench.ended.add("9")
    bench.redis.verdicts = [(1, b"a"), (1, b"a"), (1, b"a"), (1, b"")]
    end = bench.hear("1")
    bench.hear("1", event="progress")
    bench.hear("9", event="progress")
    running = bench.hear("9", event="progress")
    await bench.done()
    assert bench.delivered == end + running


async def test_messages_keep_their_order_while_redis_is_asked() -> None:
    bench = Bench(Redis(ONE))
    bench.redis.gate.clear()
    messages = bench.hear("1", "2")
    await asyncio.sleep(0)
    messages += bench.hear("3")
    assert bench.own_events.is_holding
    bench.redis.gate.set()
    await bench.done()
    assert bench.delivered == messages


async def test_while_redis_is_away_messages_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(Redis(RedisUnavailable("away")))
    messages = bench.hear("1", "2")
    await asyncio.sleep(0.05)
    assert bench.delivered == []
    bench.redis.listed = TWO
    bench.redis.verdicts = [RedisUnavailable("away"), (1, b""), (1, b"")]
    await bench.done()
    assert bench.delivered == messages
    assert bench.lost == 0


async def test_a_message_larger_than_may_wait_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_events, "MAX_BYTES", 10)
    bench = Bench(Redis(ONE))
    messages = bench.hear("1")
    await bench.done()
    assert (bench.delivered, bench.lost) == (messages, 0)


@pytest.mark.parametrize(("name", "limit"), [("MAX_HELD", 3), ("MAX_BYTES", 120)])
async def test_what_cannot_wait_any_more_is_looked_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, limit: int
) -> None:
    monkeypatch.setattr(own_events, name, limit)
    bench = Bench(Redis(ONE))
    bench.redis.gate.clear()
    messages = bench.hear(*"123456")
    bench.redis.gate.set()
    await bench.done()
    assert bench.delivered == messages[-len(bench.delivered) :]
    assert 0 < len(bench.delivered) <= 3
    assert bench.lost == 1
    assert f"queue mail: {6 - len(bench.delivered)} events were dropped" in caplog.text


async def test_a_check_that_is_refused_is_reported_and_looked_up() -> None:
    bench = Bench(Redis(TWO))
    bench.redis.verdicts = [RedisRefused("WRONGTYPE"), (1, b"")]
    bench.hear("1")
    await bench.done()
    messages = bench.hear("2")
    await bench.done()
    assert bench.delivered == messages
    assert list(map(str, bench.errors)) == ["WRONGTYPE"]
    assert bench.lost == 1


async def test_a_queue_that_closes_ends_the_check() -> None:
    bench = Bench(Redis(QueueClosed()))
    bench.hear("1")
    await bench.done()
    assert bench.delivered == []


@pytest.mark.parametrize("message", [b"", b"null", b"not json", b'{"event":"x"}', b"\xff"])
async def test_what_is_no_event_is_dropped_unasked(message: bytes) -> None:
    bench = Bench(Redis(TWO))
    bench.own_events.hear(message)
    await bench.done()
    assert bench.delivered == []
    assert "check_events" not in bench.redis.asked


async def test_many_messages_are_few_calls() -> None:
    bench = Bench(Redis(TWO))
    bench.redis.verdicts = [(1, b"")] * 250
    bench.hear(*map(str, range(250)))
    await bench.done()
    assert len(bench.delivered) == 250
    assert bench.redis.asked.count("check_events") == 3


async def test_where_info_is_forbidden_it_is_asked_once(recorder: Callable[..., Any]) -> None:
    bench = Bench(Redis(FORBIDDEN))
    bench.redis.verdicts = [(1, b"")] * 2
    for job_id in "12":
        bench.hear(job_id)
        await bench.done()
    assert bench.redis.asked.count("INFO") == 1
    assert bench.redis.asked.count("check_events") == 2
