"""Works off jobs by ``lua/exchange.lua`` and nothing else: what no engine that uses the script can be above.

One connection that blocks. Each call records what an earlier one has claimed, and claims as many jobs again;
``concurrency`` jobs are claimed at once. There is no handler, no loop, no heartbeat, and no care for what
goes wrong. The argument and the talk with the harness are as in ``beeq_worker.py``.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any
from urllib.parse import urlsplit

import hiredis

from beeq.protocol.keys import Keys
from beeq.redis import scripts
from beeq.redis.resp import CommandPrefix, pack
from beeq.worker.scheduling.actions import MAX_BATCH_BYTES

#: With so many jobs at once two calls are under way, each with half of them: Redis works on one while this
#: process works on the other. With fewer, the second call costs more than that saves.
_TWO_CALLS_FROM = 50
#: The reply has more bytes than one read brings, at times.
_READ_BYTES = 1 << 20
#: What the script takes in each call, apart from ``free``, as a worker with default settings says it. How
#: many jobs run is never counted.
_DEFAULTS = {
    "keep_ms": b"600000",
    "drop_succeeded": b"",
    "drop_failed": b"",
    "outbox_limit": b"0",
    "max_bytes": b"%d" % MAX_BATCH_BYTES,
    "active_length": b"0",
    "is_mixed": b"0",
    "token": b"alone",
    "fetched": b"",
    "is_started": b"",
}


class Wire:
    """A connection to Redis that waits for each reply."""

    def __init__(self, url: str) -> None:
        """Connect."""
        place = urlsplit(url)
        self._socket = socket.create_connection((place.hostname, place.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def send(self, packed: bytes) -> None:
        """Send a command."""
        self._socket.sendall(packed)

    def reply(self) -> Any:
        """Return the next reply; raise it if it is an error."""
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(_READ_BYTES))
        if isinstance(reply, Exception):
            raise reply
        return reply


def outcome(n: int, claimed: list[Any]) -> tuple[bytes, ...]:
    """Return what is recorded of the job in place ``n`` of a reply: a success that returned nothing."""
    raw_id, record, deliveries = claimed[3 * n : 3 * n + 3]
    claim = b"alone.%d:%d" % (n, deliveries)
    record = record.replace(b'"status":"created"', b'"status":"succeeded"')
    return raw_id, claim, b"succeeded", record, b'{"id":"%b","event":"succeeded"}' % raw_id, b"0", b""


def work(wire: Wire, keys: Keys, at_once: int, in_flight: int) -> None:
    """Work off all jobs that wait, ``at_once`` of them at a time, by so many calls that are under way."""
    known = {
        **_DEFAULTS,
        "events": keys.events.encode(),
        "earlier_delayed": keys.earlier_delayed.encode(),
        "free": b"%d" % (at_once // in_flight),
    }
    script = scripts.exchange
    names = (getattr(keys, name) for name in script.keys)
    settings = (known[name] for name in script.arguments)
    prefix = CommandPrefix("EVALSHA", script.sha, len(script.keys), *names, *settings)
    for _ in range(in_flight):
        wire.send(prefix.pack(()))
    under_way = in_flight
    while under_way:
        _facts, _is_empty, claimed, *_ = wire.reply()
        under_way -= 1
        words: list[bytes] = []
        for n in range(len(claimed) // 3):
            words += outcome(n, claimed)
        if words:
            wire.send(prefix.pack(words))
            under_way += 1


def tell(message: dict[str, Any]) -> None:
    """Say something to the harness."""
    print(json.dumps(message), flush=True)


def main(ask: dict[str, Any]) -> None:
    """Get ready, wait for the word, work, wait for the end."""
    wire = Wire(ask["url"])
    wire.send(pack("SCRIPT", "LOAD", scripts.exchange.source))
    wire.reply()
    tell({"ready": True})
    sys.stdin.readline()
    tell({"working": True})
    at_once = ask["concurrency"]
    work(wire, Keys("bq", ask["queue"]), at_once, 2 if at_once >= _TWO_CALLS_FROM else 1)
    sys.stdin.read()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
