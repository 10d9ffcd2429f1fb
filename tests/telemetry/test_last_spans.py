"""Spans that an SDK holds back to send many at once, when a worker's process ends."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from beeq import Queue
from beeq.telemetry.tracing import flush_spans
from tests.support.server import Server

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from beeq import Queue, run_workers

def make():
    provider = TracerProvider()
    exporter = ConsoleSpanExporter(out=open("spans", "a"), formatter=lambda span: span.name + "\\n")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=60_000))
    trace.set_tracer_provider(provider)
    queue = Queue(sys.argv[1], redis=sys.argv[2], tracing="link")
    queue.process(lambda job: None)
    return queue

run_workers(make, processes=1, burst=True)
"""


async def test_a_process_of_run_workers_sends_its_last_spans(
    tmp_path: Path, valkey: Server, queue_name: str
) -> None:
    async with Queue(queue_name, redis=valkey.url, is_worker=False) as queue:
        await queue.save_all([queue.create_job({"n": n}) for n in range(3)])
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(  # noqa: ASYNC221 - nothing else runs here
        [sys.executable, "program.py", queue_name, valkey.url],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "spans").read_text().splitlines() == [f"process {queue_name}"] * 3


def test_an_sdk_that_hangs_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging:
        def force_flush(self, _timeout_ms: int) -> None:
            time.sleep(60)

    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", Hanging)
    began = time.monotonic()
    flush_spans(0.1)
    assert time.monotonic() - began < 10
