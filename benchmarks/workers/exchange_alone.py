"""Works off jobs by ``lua/exchange.lua`` and nothing else: an upper bound for engines that use the script.

One blocking connection. Each call records the jobs that an earlier one has claimed, and claims as many again;
``concurrency`` jobs are claimed at once. There is no handler, no loop, no heartbeat, and no error handling.
The argument and the protocol with the harness are as in ``beeq_worker.py``.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any
from urllib.parse import urlsplit

import hiredis

from beeq.protocol.keys import Keys
from beeq.protocol.outcome import Outcome
from beeq.redis import scripts
from beeq.redis.resp import pack
from beeq.settings import Settings
from beeq.worker.pump.exchange_packer import ExchangePacker
from beeq.worker.scheduling.actions import ExchangeCall, PendingOutcome

#: With so many jobs at once two calls are under way, each with half of them: Redis works on one while this
#: process works on the other. With fewer, the second call costs more than that saves.
_TWO_CALLS_FROM = 50
#: The claim of each call.
TOKEN = b"alone"
#: A success is written without a look at its job.
NO_JOB: Any = None
#: The reply has more bytes than one read brings, at times.
_READ_BYTES = 1 << 20


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


def outcomes_of(claimed: list[Any]) -> list[PendingOutcome]:
    """Return the outcomes for the jobs of a reply: successes that returned nothing."""
    pending = []
    for n in range(len(claimed) // 3):
        raw_id, record, deliveries = claimed[3 * n : 3 * n + 3]
        record = record.replace(b'"status":"created"', b'"status":"succeeded"')
        message = b'{"id":"%b","event":"succeeded"}' % raw_id
        outcome = Outcome(NO_JOB, "succeeded", record, message)
        pending.append(PendingOutcome(raw_id, b"%b.%d:%d" % (TOKEN, n, deliveries), outcome))
    return pending


def work(wire: Wire, packer: ExchangePacker, at_once: int, in_flight: int) -> None:
    """Work off all jobs that wait, ``at_once`` of them at a time, by so many calls that are under way."""

    def call(outcomes: list[PendingOutcome]) -> bytes:
        return packer.packed(
            ExchangeCall(TOKEN, at_once // in_flight, fetched=None, outcomes=outcomes, requested=0)
        )

    for _ in range(in_flight):
        wire.send(call([]))
    under_way = in_flight
    while under_way:
        _facts, _flags, claimed, *_, last = wire.reply()
        under_way -= 1
        if isinstance(last, list):
            packer.counted(last)
        if claimed:
            wire.send(call(outcomes_of(claimed)))
            under_way += 1


def tell(message: dict[str, Any]) -> None:
    """Send a message to the harness."""
    print(json.dumps(message), flush=True)


def main(ask: dict[str, Any]) -> None:
    """Get ready, wait for the start, work, wait for the end."""
    wire = Wire(ask["url"])
    wire.send(pack("SCRIPT", "LOAD", scripts.exchange.source))
    wire.reply()
    tell({"ready": True})
    sys.stdin.readline()
    tell({"working": True})
    at_once = ask["concurrency"]
    work(
        wire,
        ExchangePacker(Keys("bq", ask["queue"]), Settings()),
        at_once,
        2 if at_once >= _TWO_CALLS_FROM else 1,
    )
    sys.stdin.read()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
