"""``beeq worker --metrics-port --health-port``: what a scraper and an orchestrator hear of real workers."""

from __future__ import annotations

import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.cli.command import Beeq, Running, eventually
from tests.support.server import Server

APP = """
import asyncio, os, time
from pathlib import Path
from beeq import Queue
from beeq.metrics import probes
probes._LEAST_PATIENCE_MS = 2500  # no wait on this queue is as long as one of the default stall interval
queue = Queue(os.environ["TEST_QUEUE"], stall_interval=500, initial_redis_failure_retry_delay=100)

@queue.process(concurrency=2)
async def handle(job):
    Path(f"started-{job.id}").write_text(str(os.getpid()))
    while job.data.get("block") and not Path("go").exists():
        time.sleep(0.01)
    while job.data.get("until") and not Path("go").exists():
        await asyncio.sleep(0.01)
    if job.data.get("fail"):
        raise ValueError
"""


class Ports:
    """Asks a worker's port."""

    def __init__(self, line: str) -> None:
        self.url = line.partition("http://")[2].partition("/")[0]

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{self.url}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def status(self, path: str) -> int:
        return self.get(path)[0]

    def samples(self) -> dict[tuple[str, ...], float]:
        return {
            (
                sample.name,
                *(value for label, value in sample.labels.items() if label != "queue"),
            ): sample.value
            for family in text_string_to_metric_families(self.get("/metrics")[1])
            for sample in family.samples
        }


@pytest.fixture
def start(beeq: Beeq, queue_name: str) -> Callable[..., tuple[Running, Ports]]:
    beeq.app(APP)

    def start(*arguments: str, **environment: str) -> tuple[Running, Ports]:
        names = ("worker", "--app", "app:queue", "--metrics-port", "0", *arguments)
        worker = beeq.start(*names, TEST_QUEUE=queue_name, **environment)
        ports = Ports(worker.until("Metrics on http://"))
        worker.until("Queue worker started")
        return worker, ports

    return start


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def started(folder: Path, job_id: str) -> int:
    file = folder / f"started-{job_id.strip()}"
    return int(eventually(lambda: file.exists() and file.read_text()))


def test_one_port_counts_for_all_processes_also_for_the_dead(
    start: Callable[..., tuple[Running, Ports]], beeq: Beeq, queue_name: str
) -> None:
    worker, ports = start("-w", "2")
    for n in range(6):
        beeq.run("enqueue", queue_name, *(["fail:=true"] if n == 0 else []), "--wait")
    waiting = [beeq.run("enqueue", queue_name, "until:=true").stdout for _ in range(3)]
    pids = {started(beeq.folder, job_id) for job_id in waiting}
    assert len(pids) == 2, "three jobs need both processes of two places"
    samples = ports.samples()
    assert samples["beeq_jobs_finished_total", "succeeded"] == 5
    assert samples["beeq_jobs_finished_total", "failed"] == 1
    assert samples["beeq_jobs", "active"] == 3
    # The process that is asked knows the places of the other from what that writes down now and then.
    eventually(lambda: ports.samples()["beeq_worker_slots",] == 4)
    eventually(lambda: ports.samples()["beeq_worker_slots_busy",] == 3)
    os.kill(pids.pop(), signal.SIGKILL)
    worker.until("was killed by signal 9")
    samples = ports.samples()
    assert samples["beeq_jobs_finished_total", "succeeded"] == 5, "a counter never goes back"
    assert samples["beeq_worker_slots",] in (2, 4), "the dead one's places are gone, or there again"
    (beeq.folder / "go").touch()
    eventually(lambda: ports.samples()["beeq_jobs_finished_total", "succeeded"] == 8)
    eventually(lambda: ports.samples()["beeq_worker_slots",] == 4)
    assert ports.samples()["beeq_job_duration_seconds_count",] >= 8


def test_probes_follow_a_workers_life(
    beeq: Beeq, queue_name: str, free_port: int, own_valkey: Server
) -> None:
    beeq.app(APP)
    names = (
        "worker",
        "--app",
        "app:queue",
        "--health-port",
        str(free_port),
        "--metrics-port",
        str(free_port),
    )
    worker = beeq.start(*names, TEST_QUEUE=queue_name, BEEQ_REDIS_URL=own_valkey.url)
    worker.until("Queue worker started")
    ports = Ports(f"http://127.0.0.1:{free_port}/")
    assert [ports.status(path) for path in ("/startupz", "/readyz", "/livez", "/metrics")] == [200] * 4
    assert ports.status("/readyz?x") == 200
    own_valkey.stop()
    eventually(lambda: ports.status("/readyz") == 503)
    assert ports.get("/livez") == (200, "ok: Redis does not answer\n")
    assert ports.samples()["beeq_redis_errors_total",] > 0
    assert ("beeq_jobs", "waiting") not in ports.samples()
    own_valkey.start()
    eventually(lambda: ports.status("/readyz") == 200)
    assert ports.status("/livez") == 200


def test_a_blocked_loop_is_told_by_the_probe(
    start: Callable[..., tuple[Running, Ports]], beeq: Beeq, queue_name: str
) -> None:
    worker, ports = start("--health-port", "0")
    probes = Ports(worker.seen[1])
    job_id = beeq.run("enqueue", queue_name, "block:=true").stdout
    started(beeq.folder, job_id)
    assert probes.status("/livez") == 200, "not yet for long"
    assert ports.samples()["beeq_worker_slots_busy",] == 1
    eventually(lambda: probes.status("/livez") == 503)
    assert f"queue {queue_name}: takes no turns" in probes.get("/readyz")[1]
    (beeq.folder / "go").touch()
    eventually(lambda: probes.status("/livez") == 200)


def test_long_jobs_in_all_places_leave_a_worker_ready(
    start: Callable[..., tuple[Running, Ports]], beeq: Beeq, queue_name: str
) -> None:
    worker, _ = start("--health-port", "0", "-c", "1")
    probes = Ports(worker.seen[1])
    started(beeq.folder, beeq.run("enqueue", queue_name, "until:=true").stdout)
    (beeq.folder / "over").write_text("")
    assert [probes.status(path) for path in ("/readyz", "/livez")] == [200, 200]


def test_a_port_in_use_ends_the_command(beeq: Beeq, queue_name: str) -> None:
    beeq.app(APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = beeq.run("worker", "--app", "app:queue", "--health-port", port, TEST_QUEUE=queue_name)
    assert (done.returncode, done.stderr) == (
        1,
        f"Error: cannot listen on 127.0.0.1, port {port}: Address already in use\n",
    )
    done = beeq.run("worker", "--metrics-port", "0", "--bind", "example.com")
    assert done.returncode == 2
    assert "--bind takes an IP address, not 'example.com'" in done.stderr


def test_an_address_without_a_port_is_refused(beeq):
    ran = beeq.run("worker", "--bind", "0.0.0.0")
    assert ran.returncode == 2
    assert "--metrics-port" in ran.stderr
