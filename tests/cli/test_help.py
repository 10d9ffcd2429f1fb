"""Each command's help ends with examples, and they work."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from beeq_cli.main import cli
from tests.cli.command import Beeq
from tests.cli.shop import Shop
from tests.support.mongo import MongoServer
from tests.support.server import Server
from tests.support.warm_start import WarmStart

APP = """
from beeq import Queue
queue = Queue("greetings")

@queue.process()
async def greet(job):
    return f"Hello {job.data['name']}"
"""
#: What runs until it is stopped, and the line by which it says that it runs.
LASTING = {"web": "Serving on ", "mirror": "Mirror started", "demo --page": "script: queued"}
#: What makes films takes long.
_SLOW = {"demo": pytest.mark.ffmpeg}
COMMANDS = [
    pytest.param(name, marks=_SLOW.get(name, ()))
    for name in cli.list_commands(None)  # type: ignore[arg-type]  # asks no context
]


@pytest.fixture
def here(tmp_path: Path, command: str, warm_start: WarmStart) -> Iterator[Beeq]:
    """The command, on a server of its own, beside ``jobs.py``; its queue ``mail`` has jobs in most states."""
    (tmp_path / "here").mkdir()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path))
        client = stack.enter_context(server.sync_client())
        shop = Shop(client, "bq")
        if command == "watch":  # what it shows has ended well
            client.smove(shop.keys.failed, shop.keys.succeeded, "17")
        beeq = Beeq(tmp_path / "here", warm_start, BEEQ_REDIS_URL=server.url)
        if command == "mirror":
            beeq.environment["MONGODB_URI"] = stack.enter_context(MongoServer(tmp_path)).url("help")
        (beeq.folder / "jobs.py").write_text(APP)
        yield beeq
        beeq.end()


def examples_of(beeq: Beeq, command: str) -> list[str]:
    """Return the lines below "Examples:" in the command's help."""
    examples = beeq.ok(command, "--help").partition("\n  Examples:\n")[2]
    return [line.strip() for line in examples.splitlines()]


def assert_runs(beeq: Beeq, line: str) -> None:
    function = f'beeq() {{ {shlex.join(beeq.python)} -m beeq_cli "$@"; }}\n'
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


def assert_runs_until_stopped(beeq: Beeq, line: str, said: str) -> None:
    running = beeq.start(*shlex.split(line)[1:])
    running.until(said)
    running.signal(signal.SIGTERM)
    assert running.ended() == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_the_help_work(here: Beeq, command: str) -> None:
    lines = examples_of(here, command)
    assert lines, "the help has no examples"
    for line in lines:
        assert re.search(rf"\bbeeq {command}\b", line)
        words = line.removeprefix("beeq ")
        lasting = next((said for name, said in LASTING.items() if words.startswith(name)), "")
        if lasting and not {"--check", "--repair"} & set(words.split()):
            assert_runs_until_stopped(here, line, lasting)
        else:
            assert_runs(here, line)


def test_the_help_needs_no_configuration(bare_beeq: Beeq) -> None:
    assert "Usage: " in bare_beeq.ok("--help")
    assert list(bare_beeq.folder.iterdir()) == []


def test_without_a_command_the_help_is_shown_line_by_line(bare_beeq: Beeq) -> None:
    assert bare_beeq.run().stderr == bare_beeq.ok("--help")
