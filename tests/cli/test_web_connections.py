"""Clients that keep ``beeq web`` waiting: heads that never end, responses that nobody takes, connections by the thousand."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from beeq.jobs import JOB_TYPES
from beeq.protocol.keys import Keys
from tests.cli.command import Beeq, eventually
from tests.cli.wire import Wire

SERVING = "Serving on "
HALF = b"GET /v1/stats HTTP/1.1\r\nhost: localhost\r\nx-slow: "


@pytest.fixture
def start(beeq: Beeq, audit: list[Keys]) -> Callable[..., str]:
    """Start ``beeq web`` on a free port; return where it serves."""
    prefix = f"web-{uuid.uuid4().hex[:12]}"
    audit += [Keys(prefix, name) for name in JOB_TYPES]
    beeq.environment |= {"BEEQ_PREFIX": prefix}

    def start(*arguments: str) -> str:
        web = beeq.start("web", "--port", "0", *arguments)
        return web.until(SERVING).partition(SERVING)[2]

    return start


@pytest.fixture
def connect() -> Iterator[Callable[[str], Wire]]:
    """Connect to a URL; what is open is closed with the test."""
    wires: list[Wire] = []

    def connect(url: str) -> Wire:
        wires.append(Wire(url))
        return wires[-1]

    yield connect
    for wire in wires:
        wire.close()


# Heads.


def test_a_head_must_come_in_time(start, connect):
    url = start("--head-timeout", "300ms")
    silent, half, second = connect(url), connect(url), connect(url)
    half.send(HALF)
    assert second.get("/health")[0] == 200
    second.send(HALF)
    for wire in (half, second):
        status, headers, body = wire.answer()
        assert (status, headers["connection"]) == (408, "close")
        assert json.loads(body) == {"error": "The head of the request did not come in time"}
        assert wire.is_at_end()
    assert silent.is_at_end()
    assert httpx.get(f"{url}/health").status_code == 200


def test_a_head_that_comes_byte_by_byte_has_no_more_time(start, connect):
    url = start("--head-timeout", "500ms")
    wire = connect(url)
    wire.send(HALF)
    began, is_over = time.monotonic(), threading.Event()

    def dribble() -> None:
        while not is_over.wait(0.02):
            try:
                wire.send(b"x")
            except OSError:
                return

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        assert wire.answer()[0] == 408
    except (ConnectionResetError, IndexError):
        pass  # its bytes met a connection that was closed
    finally:
        is_over.set()
        thread.join()
    assert time.monotonic() - began < 20


def test_an_honest_client_may_ask_again_on_its_connection(start, connect):
    url = start("--head-timeout", "2s")
    wire = connect(url)
    for _ in range(3):
        assert wire.get("/health")[0] == 200
    # Two requests in one piece are two answers.
    wire.send(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2)
    assert [wire.answer()[0] for _ in range(2)] == [200, 200]


# Connections.


def test_a_new_connection_takes_the_place_of_the_slowest(start, connect):
    url = start("--max-connections", "4")
    half = [connect(url) for _ in range(4)]
    for wire in half:
        wire.send(HALF)
    honest = connect(url)
    assert honest.get("/health")[0] == 200
    assert ended(half[0])
    # The others go on, and the honest one too.
    for wire in half[1:]:
        wire.send(b"\r\n\r\n")
        assert wire.answer()[0] == 200
    assert honest.get("/health")[0] == 200


def test_open_pages_leave_connections_to_others(start, connect):
    url = start("--max-connections", "8")
    pages = [connect(url) for _ in range(6)]
    for page in pages[:4]:
        page.send(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert page.answer()[0] == 200
        page.line()  # the stream has begun
    for page in pages[4:]:
        assert page.get("/events")[0] == 503
    assert connect(url).get("/health")[0] == 200


def test_who_sends_a_body_slowly_gives_way_too(start, connect):
    url = start("--max-connections", "2")
    slow = [connect(url) for _ in range(2)]
    for wire in slow:
        wire.send(
            b"POST /v1/generate/script HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"expect: 100-continue\r\ncontent-length: 100\r\n\r\n"
        )
        assert wire.answer()[0] == 100
    assert connect(url).get("/health")[0] == 200
    assert ended(slow[0])


def ended(wire: Wire) -> bool:
    """Return whether the other side has ended the connection, also by a reset."""
    try:
        return wire.is_at_end()
    except ConnectionResetError:
        return True


#: Opens so many connections, sends half a head on each, prints how many there are; and how many are left,
#: for each line that it reads.
ATTACK = """
import socket, sys
port, count = int(sys.argv[1]), int(sys.argv[2])
wires = []
for number in range(count):
    wires.append(socket.create_connection(("127.0.0.1", port)))
    try:
        wires[-1].send(b"GET / HTTP/1.1\\r\\nx: ")
    except OSError:
        pass
    wires[-1].setblocking(False)
print(len(wires), flush=True)

def is_alive(wire):
    try:
        while wire.recv(65536):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False

for line in sys.stdin:
    wires = [wire for wire in wires if is_alive(wire)]
    print(len(wires), flush=True)
"""


@pytest.mark.external
def test_half_heads_by_the_thousand_starve_nobody(beeq, audit):
    """With 256 descriptors, and 1500 connections that send half a head."""
    prefix = f"web-{uuid.uuid4().hex[:12]}"
    audit += [Keys(prefix, name) for name in JOB_TYPES]
    beeq.environment |= {"BEEQ_PREFIX": prefix}
    limited = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    web = beeq.start_module("beeq_cli", "web", "--port", "0", through=limited)
    attacker: Any = None
    try:
        url = web.until(SERVING).partition(SERVING)[2]
        attacker = subprocess.Popen(
            [sys.executable, "-c", ATTACK, url.rpartition(":")[2], "1500"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096)),  # noqa: PLW1509 - no threads here
        )
        assert attacker.stdout.readline() == "1500\n"
        for _ in range(5):
            assert httpx.get(f"{url}/health", timeout=10).status_code == 200

        def alive() -> int:
            attacker.stdin.write("\n")
            attacker.stdin.flush()
            return int(attacker.stdout.readline())

        assert eventually(lambda: alive() < 150, within_s=20)
        assert eventually(lambda: alive() == 0, within_s=20)
        assert "Traceback" not in web.stderr
        assert "out of system resource" not in web.stderr
    finally:
        if attacker is not None:
            attacker.kill()
            attacker.communicate()
