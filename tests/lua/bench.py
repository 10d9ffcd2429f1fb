"""One script, one server: sets keys, runs the script by its header, and shows every key and message after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import hiredis
import redis

from beeq.protocol.keys import SIDE_SUFFIXES, Keys
from beeq.redis import scripts
from beeq.redis.scripts import Script

_SIDE = {suffix.removeprefix("beeq:"): suffix for suffix in SIDE_SUFFIXES}


def batched(values: Iterable[Any], size: int = 10_000) -> Iterator[list[Any]]:
    """Yield the values in lists that a server reads within a moment, also fakeredis on a busy machine."""
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch


class Bench:
    """A queue's keys by their short names (``claims`` for ``beeq:claims``), on a real server.

    Args:
        client: decodes replies.
        keys: of a queue that nobody else uses.
    """

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self.redis = client
        self.keys = keys
        self._ear = client.pubsub()
        self._ear.subscribe(keys.events, keys.earlier_delayed)
        for _ in range(2):
            assert self._ear.get_message(timeout=5) is not None

    def close(self) -> None:
        """Delete the queue."""
        self._ear.close()
        every = list(self.redis.scan_iter(match=f"{self.keys.to_key('')}*", count=1000))
        if every:
            self.redis.delete(*every)

    def key(self, name: str) -> str:
        """Return the full name of a key."""
        return self.keys.to_key(_SIDE.get(name, name))

    def put(self, **state: Any) -> None:
        """Set keys: a list, a set, a dict of text (a hash) or of ints (a sorted set), or text."""
        for name, value in state.items():
            key = self.key(name)
            if isinstance(value, list | set):
                add = self.redis.rpush if isinstance(value, list) else self.redis.sadd
                for members in batched(value):
                    add(key, *members)
            elif isinstance(value, dict):
                is_sorted_set = all(isinstance(score, int) for score in value.values())
                for pairs in batched(value.items()):
                    if is_sorted_set:
                        self.redis.zadd(key, dict(pairs))
                    else:
                        self.redis.hset(key, mapping=dict(pairs))
            else:
                self.redis.set(key, value)

    def drop(self, *names: str) -> None:
        """Delete keys."""
        for name in names:
            self.redis.delete(self.key(name))

    def run(self, script: Script, **arguments: Any) -> Any:
        """Run the script with the arguments that its header names, by the very command that beeq sends."""
        reader = hiredis.Reader()
        reader.feed(script.pack(self.keys, **arguments))
        _evalsha, _sha, count, *words = reader.gets()
        return self.redis.eval(script.source, int(count), *words)

    def exchange(self, *ends: End, **changed: Any) -> Any:
        """Run ``exchange`` with these outcomes, and arguments that ask for nothing but for what is changed."""
        arguments: dict[str, Any] = {
            "events": "",
            "earlier_delayed": "",
            "keep_ms": 1000,
            "drop_succeeded": "",
            "drop_failed": "",
            "outbox_limit": "0",
            "max_bytes": 1_000_000,
            "active_length": "",
            "is_mixed": "",
            "token": "T",
            "free": 0,
            "wanted_ahead": 0,
            "ahead_ms": "",
            "fetched": "",
            "is_started": "",
        }
        outcomes = [end.arguments() for end in ends]
        return self.run(scripts.exchange, **{**arguments, **changed}, outcomes=outcomes)

    def snapshot(self) -> dict[str, Any]:
        """Return every key under the queue's prefix by its short name; sorted sets as dicts."""
        stem, found = self.keys.to_key(""), dict[str, Any]()
        for key in self.redis.scan_iter(match=f"{stem}*", count=1000):
            value: Any
            pairs: Any
            match self.redis.type(key):
                case "string":
                    value = self.redis.get(key)
                case "list":
                    value = self.redis.lrange(key, 0, -1)
                case "set":
                    value = set(self.redis.smembers(key))
                case "hash":
                    value = self.redis.hgetall(key)
                case "zset":
                    pairs = self.redis.zrange(key, 0, -1, withscores=True)
                    value = {member: int(score) for member, score in pairs}
                case "stream":
                    value = [fields for _, fields in self.redis.xrange(key) or ()]
                case "none":
                    continue  # its time was over just now
                case other:
                    raise AssertionError(f"{key} is a {other!r}")
            found[key.removeprefix(stem).removeprefix("beeq:")] = value
        return found

    def passing(self) -> dict[str, tuple[int, str]]:
        """Return when the result of each dropped job is due, and its text; either key has a TTL."""
        found = dict[str, tuple[int, str]]()
        for key in (self.keys.even_results, self.keys.odd_results):
            left_ms = self.redis.pttl(key)
            expires_ms = self.now_ms() + left_ms
            entries: Any = self.redis.hgetall(key)
            for job_id, entry in entries.items():
                due_ms, _, text = entry.partition(":")
                assert job_id not in found, "an id has one result"
                assert left_ms > 0
                assert expires_ms >= int(due_ms), "a key does not go before its last entry"
                found[job_id] = int(due_ms), text
        return found

    def heard(self) -> list[tuple[str, str]]:
        """Return channel suffix and text of all messages since the last call, in their order."""
        self.redis.publish(self.keys.events, "over")
        messages: list[tuple[str, str]] = []
        while True:
            message = self._ear.get_message(timeout=5)
            assert message is not None, "a message was lost"
            if message["data"] == "over":
                return messages
            messages.append((message["channel"].removeprefix(self.keys.to_key("")), message["data"]))

    def now_ms(self) -> int:
        """Return the server's clock."""
        seconds, microseconds = self.redis.time()
        return int(seconds) * 1000 + int(microseconds) // 1000


@dataclass
class End:
    """One outcome, as ``exchange`` takes it."""

    job_id: str
    status: str = "succeeded"
    claim: str = "t:1"
    record: str | None = None
    message: str | None = None
    delay_ms: int = 0
    keep: str = ""
    attempt: str = ""

    def arguments(self) -> tuple[Any, ...]:
        """Return the seven arguments."""
        record = f"{self.job_id} {self.status}" if self.record is None else self.record
        message = f"event {self.job_id}" if self.message is None else self.message
        delay = f"{self.delay_ms}:{self.attempt}" if self.attempt else self.delay_ms
        return (self.job_id, self.claim, self.status, record, message, delay, self.keep)
