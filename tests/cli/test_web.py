"""``beeq web``, and the application under uvicorn itself: real processes, real sockets."""

from __future__ import annotations

import json
import re
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from beeq.jobs import JOB_TYPES
from beeq.protocol.keys import Keys
from beeq.web.server import url_of
from tests.cli.command import Beeq, Running, eventually, said
from tests.cli.wire import Wire
from tests.support.server import free_port

SCRIPT = "/v1/generate/script"
WANTED: dict[str, Any] = {"projectId": "project-1", "userId": 7, "parameters": {"topic": "bees"}}
SERVING = "Serving on "
#: A worker that writes scripts without any AI.
APP = """
import os
from beeq import Queue
queue = Queue("ai-generation", prefix=os.environ["TEST_PREFIX"])

@queue.process()
async def handle(job):
    return {"title": job.data["parameters"]["topic"], "scenes": []}
"""


@pytest.fixture
def prefix(audit: list[Keys], beeq: Beeq) -> str:
    """A prefix of this test's own, for the queues' names are given."""
    prefix = f"web-{uuid.uuid4().hex[:12]}"
    audit += [Keys(prefix, name) for name in JOB_TYPES]
    beeq.environment |= {"BEEQ_PREFIX": prefix, "TEST_PREFIX": prefix}
    return prefix


@pytest.fixture
def start(beeq: Beeq, prefix: str) -> Callable[..., tuple[Running, str]]:
    """Start ``beeq web`` on a free port; return it, and where it serves."""

    def start(*arguments: str, **environment: str) -> tuple[Running, str]:
        web = beeq.start("web", "--port", "0", *arguments, **environment)
        return web, web.until(SERVING).partition(SERVING)[2]

    return start


def is_refused(url: str) -> bool:
    """Return whether nobody listens; a server that is about to end may take a connection and say nothing."""
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def serves(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5).is_success
    except httpx.ConnectError:
        return False


# Starting and ending.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_on_loopback_until_a_signal_comes(start, number):
    web, url = start()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
    assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    web.signal(number)
    assert web.ended() == 0
    assert (web.stdout, web.said) == ("", [f"{SERVING}{url}"])
    assert is_refused(url)


def test_the_port_can_be_chosen(beeq, prefix):
    port = str(free_port())
    web = beeq.start("web", BEEQ_PORT=port)
    assert said(web.until(SERVING)) == f"{SERVING}http://127.0.0.1:{port}"
    other = str(free_port())
    assert beeq.start("web", "--port", other, BEEQ_PORT=port).until(SERVING).endswith(f":{other}")


def test_an_address_of_ipv6_is_written_as_in_a_url():
    listener: Any = SimpleNamespace(getsockname=lambda: ("::1", 8000, 0, 0))
    assert url_of(listener) == "http://[::1]:8000"


def test_with_q_it_says_nothing(beeq, prefix):
    port = free_port()
    web = beeq.start("web", "-q", "--port", str(port))
    eventually(lambda: serves(f"http://127.0.0.1:{port}"))
    web.signal(signal.SIGTERM)
    assert web.ended() == 0
    assert (web.stdout, web.stderr) == ("", "")


def test_requests_are_logged_with_v_only(start):
    for arguments, is_logged in (((), False), (("-v",), True)):
        web, url = start(*arguments)
        httpx.get(f"{url}/nowhere%0Aelse", params={"a": "b"})
        web.signal(signal.SIGTERM)
        assert web.ended() == 0
        assert ('"GET /nowhere%0Aelse?a=b HTTP/1.1" 404' in web.stderr) == is_logged
        assert web.stdout == ""


def test_a_port_in_use_exits_with_1_and_one_line(start, beeq):
    _web, url = start()
    port = url.rpartition(":")[2]
    ran = beeq.run("web", "--port", port)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f"Error: cannot listen on 127.0.0.1, port {port}: Address already in use\n"


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid", "a" * 70 + ".example"])
def test_a_host_that_is_not_here_exits_with_1_and_one_line(beeq, host):
    ran = beeq.run("web", "--host", host, "--port", "0", BEEQ_WEB_TOKEN="t0ken")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.fullmatch(r"Error: cannot listen on \S+, port 0: .+\n", ran.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--host", ""),
        ("--port", "x"),
        ("--port", "65536"),
        ("--port", "-1"),
        ("-u", ""),
        ("-u", "http://x"),
        ("--mongo-url", "http://x"),
        ("--allow-host", "*"),
        ("--allow-host", "a.example,b c"),
        ("--max-waiting", "0"),
        ("--max-waiting", "many"),
        ("--max-connections", "0"),
        ("--head-timeout", "soon"),
        ("--head-timeout", "0s"),
        ("--head-timeout", "2h"),
        ("x",),
    ],
)
def test_wrong_usage_exits_with_2(beeq, arguments):
    ran = beeq.run("web", *arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Error: " in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_cluster_without_a_hash_tag_exits_with_2(beeq):
    ran = beeq.run("web", "-u", "redis+cluster://127.0.0.1:1")
    assert ran.returncode == 2
    assert "hash tag" in ran.stderr


@pytest.mark.external  # each imports all
@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_without_the_extra_it_exits_with_1_and_names_it(beeq, package):
    (beeq.folder / f"{package}.py").write_text("raise ImportError")  # found before the real one
    ran = beeq.cold().run("web", "--port", "0")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.count("\n") == 1
    assert "pip install 'beequeue[web]'" in ran.stderr
    assert beeq.run("web", "--help").returncode == 0
    beeq.ok("stats")


def test_a_mirror_without_its_driver_exits_1_and_names_the_extra(beeq):
    (beeq.folder / "pymongo.py").write_text("raise ImportError")
    ran = beeq.cold().run("web", "--port", "0", "--mongo-url", "mongodb://127.0.0.1")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.count("\n") == 1
    assert "'beequeue[mongo]'" in ran.stderr


# Jobs.


def test_a_script_that_is_asked_for_is_written_by_a_worker(start, beeq):
    _web, url = start()
    asked = httpx.post(f"{url}{SCRIPT}", json=WANTED)
    assert asked.status_code == 200
    job_id = asked.json()["jobId"]
    document = httpx.get(f"{url}/v1/jobs/{job_id}/status").json()
    assert (document["status"], document["result"]) == ("queued", None)
    beeq.app(APP)
    worker = beeq.start("worker", "ai-generation", "--app", "app:queue")
    worker.until("Queue worker started")

    def completed() -> Any:
        found = httpx.get(f"{url}/v1/jobs/{job_id}/status").json()
        return found if found["status"] == "completed" else None

    done = eventually(completed)
    assert done["result"] == {"title": "bees", "scenes": []}
    assert (done["projectId"], done["queueName"], done["error"]) == ("project-1", "ai-generation", None)


def test_the_stats_are_those_of_the_command(start, beeq):
    _web, url = start()
    httpx.post(f"{url}{SCRIPT}", json=WANTED)
    beeq.ok("enqueue", "webhook-processing", "webhookUrl=https://a.example", "payload:={}", "--delay", "1h")
    served = httpx.get(f"{url}/v1/stats").json()
    printed = json.loads(beeq.ok("stats", "--json"))
    ages = [numbers["ai-generation"].pop("oldestWaiting") for numbers in (served, printed)]
    assert {name: served[name] for name in printed} == printed  # which are those that Redis holds
    assert set(printed) == {"ai-generation", "webhook-processing"}
    assert 0 <= ages[0] <= ages[1] < 60_000
    assert served["ai-generation"]["waiting"] == served["webhook-processing"]["delayed"] == 1


def test_with_nothing_configured_it_shares_the_folders_server(bare_beeq):
    web = bare_beeq.start("web", "--port", "0")
    url = web.until(SERVING).partition(SERVING)[2]
    job_id = httpx.post(f"{url}{SCRIPT}", json=WANTED).json()["jobId"]
    assert bare_beeq.stats("ai-generation")["waiting"] == 1
    web.signal(signal.SIGTERM)
    assert web.ended() == 0
    again = bare_beeq.start("web", "--port", "0")
    url = again.until(SERVING).partition(SERVING)[2]
    assert httpx.get(f"{url}/v1/jobs/{job_id}/status").json()["status"] == "queued"


def test_it_serves_without_redis_and_says_so(beeq, own_valkey):
    own_valkey.stop()
    redis_url = f"redis://:hush@127.0.0.1:{own_valkey.port}"
    web = beeq.start("web", "--port", "0", "-u", redis_url)
    url = web.until(SERVING).partition(SERVING)[2]
    web.until("Redis is not available")
    assert httpx.get(f"{url}/health").status_code == 503
    web.signal(signal.SIGTERM)
    assert web.ended() == 0
    assert "hush" not in web.stderr
    assert "Traceback" not in web.stderr


# On the wire.


@pytest.fixture
def wire(start) -> Iterator[Callable[[], Wire]]:
    """Connect to a running ``beeq web``."""
    _web, url = start()
    wires: list[Wire] = []

    def connect() -> Wire:
        wires.append(Wire(url))
        return wires[-1]

    yield connect
    for wire in wires:
        wire.close()


def head(*lines: str) -> bytes:
    lines = (f"POST {SCRIPT} HTTP/1.1", "host: localhost", "content-type: application/json", *lines)
    return "\r\n".join((*lines, "", "")).encode()


def test_a_body_that_is_too_large_gets_its_answer_through(wire):
    large = b" " * (5 << 20)
    connection = wire()
    for lines, body in (
        ((f"content-length: {len(large)}",), large),
        (("transfer-encoding: chunked",), b"%x\r\n%s\r\n0\r\n\r\n" % (len(large), large)),
    ):
        connection.send(head(*lines))
        connection.send(body)
        status, _, content = connection.answer()
        assert (status, json.loads(content)) == (413, {"error": "The body is larger than 1048576 bytes"})
    # The connection is as good as new.
    body = json.dumps(WANTED).encode()
    connection.send(head(f"content-length: {len(body)}") + body)
    assert connection.answer()[0] == 200


def test_a_size_beyond_all_patience_is_refused_at_once(wire):
    connection = wire()
    connection.send(head(f"content-length: {1 << 40}"))
    status, headers, _ = connection.answer()
    assert (status, headers["connection"]) == (413, "close")
    assert connection.is_at_end()


def test_who_asks_before_sending_is_told_before_sending(wire):
    connection = wire()
    connection.send(head(f"content-length: {2 << 20}", "expect: 100-continue"))
    assert connection.answer()[0] == 413
    connection = wire()
    body = json.dumps(WANTED).encode()
    connection.send(head(f"content-length: {len(body)}", "expect: 100-continue"))
    assert connection.answer()[0] == 100
    connection.send(body)
    assert connection.answer()[0] == 200


def test_head_and_raw_ids_come_through_a_real_server(wire, beeq):
    connection = wire()
    beeq.ok("enqueue", "ai-generation", "type=script", "--id", "a/b ?")
    connection.send(b"GET /v1/jobs/a%2Fb%20%3F/status?x=1 HTTP/1.1\r\nhost: localhost\r\n\r\n")
    status, headers, content = connection.answer()
    assert (status, json.loads(content)["jobId"]) == (200, "a/b ?")
    assert headers.keys() == {"content-type", "content-length", "cache-control", "date"}
    connection.send(b"HEAD /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    rest = connection._stream.read()
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-length: 15\r\n" in rest
    assert rest.endswith(b"\r\n\r\n")


def test_a_request_under_way_ends_before_the_server_does(start):
    web, url = start()
    connection = Wire(url)
    body = json.dumps(WANTED).encode()
    connection.send(head(f"content-length: {len(body)}", "expect: 100-continue"))
    assert connection.answer()[0] == 100  # it waits for the body now
    web.signal(signal.SIGTERM)
    eventually(lambda: is_refused(url))
    connection.send(body)
    assert connection.answer()[0] == 200
    connection.close()
    assert web.ended() == 0


def test_the_second_signal_waits_for_nobody(start):
    web, url = start()
    connection = Wire(url)
    connection.send(head("content-length: 100", "expect: 100-continue"))
    assert connection.answer()[0] == 100
    web.signal(signal.SIGTERM)
    eventually(lambda: is_refused(url))
    web.signal(signal.SIGTERM)
    assert web.ended(within_s=5) == 0
    connection.close()


# Under uvicorn's own command.


def uvicorn(beeq: Beeq, **environment: str) -> Running:
    return beeq.start_module("uvicorn", "beeq.web:app", "--port", "0", **environment)


def test_the_app_runs_under_uvicorn(beeq, prefix):
    server = uvicorn(beeq)
    line = server.until("Uvicorn running on ")
    url = next(word for word in line.split() if word.startswith("http://"))
    job_id = httpx.post(f"{url}{SCRIPT}", json=WANTED).json()["jobId"]
    assert beeq.stats("ai-generation")["waiting"] == 1
    assert httpx.get(f"{url}/v1/jobs/{job_id}/status").status_code == 200
    server.signal(signal.SIGTERM)
    server.ended()
    assert "Application shutdown complete" in server.stderr


def test_a_wrong_setting_keeps_it_from_starting_under_uvicorn(beeq):
    server = uvicorn(beeq, BEEQ_REDIS_URL="http://:hush@host")
    assert server.ended() != 0
    assert "BEEQ_REDIS_URL: the Redis URL must begin with one of" in server.stderr
    assert "hush" not in server.stderr
    assert "Traceback" not in server.stderr
