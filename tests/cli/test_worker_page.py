"""``beeq worker --web-port``: the page of real workers, which it neither stops nor outlives."""

from __future__ import annotations

import os
import signal
import socket
import uuid
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from beeq.protocol.keys import Keys
from tests.cli.command import Beeq, Running, eventually

APP = """
import asyncio, os, time
from pathlib import Path
import redis.asyncio
from beeq import Queue

queue = Queue("films", prefix=os.environ["BEEQ_PREFIX"])

@queue.process
async def handle(job):
    Path(f"started-{job.id}").touch()
    while job.data.get("block") and not Path("go").exists():
        time.sleep(0.01)
    while job.data.get("until") and not Path("go").exists():
        await asyncio.sleep(0.01)

elsewhere = Queue("films", redis=os.environ["BEEQ_REDIS_URL"], prefix="elsewhere-" + os.environ["BEEQ_PREFIX"])
of_a_client = Queue("films", redis=redis.asyncio.Redis())
for each in (elsewhere, of_a_client):
    each.process(handle)
"""


@pytest.fixture
def prefix(beeq: Beeq, audit: list[Keys]) -> str:
    prefix = f"page-{uuid.uuid4().hex[:12]}"
    audit += [Keys(prefix, "films"), Keys(f"elsewhere-{prefix}", "films")]
    beeq.environment |= {"BEEQ_PREFIX": prefix}
    beeq.app(APP)
    return prefix


@pytest.fixture
def start(beeq: Beeq, prefix: str) -> Callable[..., tuple[Running, str]]:
    """Start a worker with a page; return it, and where the page is."""

    def start(*arguments: str, app: str = "queue", **environment: str) -> tuple[Running, str]:
        named = ("worker", "--app", f"app:{app}", "--web-port", "0")
        worker = beeq.start(*named, *arguments, **environment)
        line = worker.until("Page on http://")
        worker.until("Queue worker started")
        return worker, line.partition("Page on ")[2].partition("/: ")[0]

    return start


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=60)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def pid_of_page(worker: Running) -> int:
    """Return the process of the page, which reads what it is to do from its parent alone."""
    return int(eventually(lambda: next(iter(pids_of_pages(worker)), 0)))


def pids_of_pages(worker: Running) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            is_of_worker = f"PREFIX={worker_prefix(worker)}".encode() in (folder / "environ").read_bytes()
        except OSError:
            continue  # it has ended, or is not ours
        if b"from beeq_cli.page import serve" in command and is_of_worker:
            found.append(int(folder.name))
    return found


def worker_prefix(worker: Running) -> str:
    started = next(line for line in worker.seen if ", prefix " in line)
    return started.partition(", prefix ")[2].partition(";")[0].removeprefix("elsewhere-")


def test_a_worker_serves_the_page_until_it_ends(start, beeq):
    worker, url = start()
    job_id = beeq.ok("enqueue", "films", "until:=true").strip()
    eventually((beeq.folder / f"started-{job_id}").exists)
    job = get(f"{url}/q/films/jobs/{job_id}")
    assert "Cancel" in job.text
    worker.signal(signal.SIGTERM)
    worker.until("no more jobs are taken")
    assert get(f"{url}/q/films/jobs/{job_id}").status_code == 200, "one may look on while jobs end"
    (beeq.folder / "go").touch()
    assert worker.ended() == 0
    assert not answers(url)
    assert pids_of_pages(worker) == []


def test_a_handler_that_blocks_does_not_hold_the_page_up(start, beeq):
    _, url = start()
    job_id = beeq.ok("enqueue", "films", "block:=true").strip()
    eventually((beeq.folder / f"started-{job_id}").exists)
    assert "Active" in get(f"{url}/q/films/active").text
    (beeq.folder / "go").touch()


def test_a_page_that_dies_comes_back_and_stops_no_worker(start, beeq):
    worker, url = start()
    eventually(lambda: answers(url))
    os.kill(pid_of_page(worker), signal.SIGKILL)
    assert "the worker goes on" in worker.until("the page's process was killed by signal 9")
    assert beeq.run("enqueue", "films", "--wait").returncode == 0
    eventually(lambda: answers(url))


@pytest.mark.parametrize("arguments", [(), ("-w", "2")])
def test_the_page_of_a_worker_that_was_killed_ends(start, arguments):
    worker, url = start(*arguments)
    eventually(lambda: answers(url))
    os.kill(worker.pid, signal.SIGKILL)
    eventually(lambda: not answers(url))
    eventually(lambda: not pids_of_pages(worker))


def test_several_processes_have_one_page(start, beeq):
    worker, url = start("-w", "2")
    eventually(lambda: answers(url))
    assert len(pids_of_pages(worker)) == 1
    workers = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
    for pid in workers:
        os.kill(int(pid), signal.SIGKILL)
        worker.until("works now")
    eventually(lambda: len(pids_of_pages(worker)) == 1)
    eventually(lambda: answers(url))
    worker.signal(signal.SIGTERM)
    assert worker.ended() == 0
    assert not answers(url)


def test_a_port_that_is_taken_is_said_at_the_start(beeq, prefix):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ran = beeq.run("worker", "--app", "app:queue", "--web-port", port)
    assert ran.returncode == 1
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in ran.stderr
    assert "Queue worker started" not in ran.stderr


def test_beyond_this_machine_the_page_needs_a_token(beeq, start):
    ran = beeq.run("worker", "--app", "app:queue", "--web-port", "0", "--bind", "0.0.0.0")
    assert (ran.returncode, "BEEQ_WEB_TOKEN" in ran.stderr) == (2, True)
    ran = beeq.run("worker", "--app", "app:queue", "--web-port", "0", BEEQ_WEB_TOKEN="a b")
    assert (ran.returncode, "BEEQ_WEB_TOKEN" in ran.stderr) == (2, True)
    _, url = start("--bind", "0.0.0.0", BEEQ_WEB_READ_TOKEN="looks", BEEQ_WEB_TOKEN="acts")
    url = url.replace("0.0.0.0", "127.0.0.1")
    assert get(url).headers["location"] == "/login?next=%2F"
    acting = {"verb": "pause"}
    for token, status in (("looks", 403), ("acts", 303)):
        headers = {"authorization": f"Bearer {token}"}
        assert httpx.get(url, headers=headers, timeout=60).status_code == 200
        assert (
            httpx.post(f"{url}/q/films/act", data=acting, headers=headers, timeout=60).status_code == status
        )


def test_the_page_shows_where_the_apps_queues_are(start, beeq, prefix):
    _, url = start(app="elsewhere")
    beeq.ok("enqueue", "films", "-p", f"elsewhere-{prefix}", "title=Dawn")
    eventually(lambda: ">films<" in get(url).text)
    ran = beeq.run("worker", "--app", "app:of_a_client", "--web-port", "0")
    assert (ran.returncode, "queue films was made with a client" in ran.stderr) == (2, True)


def test_no_secret_is_in_the_arguments_of_the_pages_process(start, prefix):
    worker, _url = start(BEEQ_WEB_TOKEN="t0ken-that-acts")
    arguments = Path(f"/proc/{pid_of_page(worker)}/cmdline").read_text()
    assert "redis" not in arguments
    assert "t0ken" not in arguments
