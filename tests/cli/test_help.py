"""Each command's help ends with examples, and they work."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from tests.cli.command import Beeq, Running

APP = """
from beeq import Queue
queue = Queue("greetings")

@queue.process()
async def greet(job):
    return f"Hello {job.data['name']}"
"""
#: What runs until it is stopped, and the line by which it says that it runs.
LASTING = {"web": "Serving on "}
COMMANDS = ("worker", "enqueue", "stats", "web")


def examples_of(beeq: Beeq, command: str) -> list[str]:
    """Return the lines below "Examples:" in the command's help."""
    examples = beeq.ok(command, "--help").partition("\n  Examples:\n")[2]
    lines = [line.strip() for line in examples.splitlines()]
    assert lines, "the help has no examples"
    return lines


def assert_runs(beeq: Beeq, line: str) -> None:
    function = f'beeq() {{ "{sys.executable}" -m beeq_cli "$@"; }}\n'
    ran = subprocess.run(
        ["/bin/sh", "-c", function + line],
        cwd=beeq.folder,
        env=beeq.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, f"{line}: {ran.stderr}"


def assert_runs_until_stopped(running: Running, until: str) -> None:
    running.until(until)
    running.signal(signal.SIGTERM)
    assert running.ended() == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_the_help_work(bare_beeq: Beeq, command: str) -> None:
    (bare_beeq.folder / "jobs.py").write_text(APP)
    for line in examples_of(bare_beeq, command):
        assert re.search(rf"\bbeeq {command} ", line)
        if command in LASTING:
            assert_runs_until_stopped(bare_beeq.start(*line.split()[1:]), LASTING[command])
        else:
            assert_runs(bare_beeq, line)


def test_the_help_needs_no_configuration(bare_beeq: Beeq) -> None:
    assert "Usage: " in bare_beeq.ok("--help")
    assert list(bare_beeq.folder.iterdir()) == []
