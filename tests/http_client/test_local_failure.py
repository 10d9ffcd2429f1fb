"""What is the worker's own fault is not its receivers': a real worker that has no file free for a while."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from pathlib import Path

import httpcore
import pytest

from beeq.http_client.local_failure import local_failure
from tests.webhooks.receiver import Receiver

ROOT = Path(__file__).resolve().parents[2]

#: One failure opens a circuit, and no job has a retry: what is blamed on anybody fails.
WITHOUT_A_FREE_FILE = """
import asyncio, logging, os, resource, sys
from beeq import Queue
from beeq.processors import webhook
from beeq.processors.base import ProcessorSettings
from beeq.http_client import connections
from beeq.webhooks.receivers.admission import ReceiverLimits

connections.KEEPALIVE_S = 0.2
webhook._LOCAL_FAILURE_WAIT_MS = 1000


async def main(port):
    logging.basicConfig(level="WARNING", stream=sys.stdout, format="log: %(message)s")
    queue = Queue("webhook-processing", redis="embedded:", delayed_debounce=1)
    await queue.connect()
    settings = ProcessorSettings(webhook_allow_hosts="127.0.0.1,127.0.0.2,localhost")
    processor = webhook.WebhookProcessor(settings, receivers=ReceiverLimits(max_failures=1))
    waiting = asyncio.Queue()
    queue.on("postponed", lambda job, error: waiting.put_nowait(str(error)))
    queue.process(processor, concurrency=2)
    async def sent(host):
        return await queue.enqueue({"webhookUrl": f"http://{host}:{port}/", "payload": {}})
    await (await sent("127.0.0.1")).result(30_000)
    await asyncio.sleep(0.5)  # its connection is closed after 0.2
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    held = []
    try:
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        pass
    jobs = [await sent(host) for host in HOSTS]
    reasons = [await waiting.get() for _ in jobs]
    for file in held:
        os.close(file)
    for job in jobs:
        print(await job.result(30_000))
    print(*reasons, sep="\\n")
    await processor.close()
    await queue.close()


asyncio.run(main(int(sys.argv[1])))
"""


async def test_without_a_free_file_jobs_wait_and_nobody_is_blamed(tmp_path: Path) -> None:
    hosts = ["127.0.0.1", "localhost"]
    async with Receiver() as receiver:
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            f"HOSTS = {hosts}\n{WITHOUT_A_FREE_FILE}",
            str(receiver.port),
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}"},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(90):
                said = (await worker.communicate())[0].decode()
        finally:
            if worker.returncode is None:
                worker.kill()
        delivered = len(receiver.requests)

    reason = "this worker cannot open a connection: Too many open files"
    assert said.count("'status': 200") == len(hosts)
    assert said.splitlines()[-2:] == [reason] * 2
    assert said.count(f"log: webhooks wait: {reason}") == 1
    assert delivered == 1 + len(hosts)


@pytest.mark.parametrize(
    "number",
    [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.ENETDOWN],
)
def test_a_fault_of_the_worker_is_found_below_what_reports_it(number: int) -> None:
    error = httpcore.ConnectError("no")
    error.__cause__ = OSError("All connection attempts failed")
    error.__cause__.__cause__ = ExceptionGroup("several", [OSError(number, "no")])

    assert str(local_failure(error)) == f"this worker cannot open a connection: {os.strerror(number)}"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ECONNREFUSED, "no"),
        OSError(errno.ENETUNREACH, "no"),
        OSError(errno.EHOSTUNREACH, "no"),
        socket.gaierror(socket.EAI_AGAIN, "no"),
        httpcore.ConnectError("no"),
    ],
)
def test_what_may_be_the_receivers_fault_is_not_the_workers(error: Exception) -> None:
    assert local_failure(error) is None
