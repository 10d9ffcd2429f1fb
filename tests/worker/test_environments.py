"""Secrets of a worker's environment reach the user's own code, and no other process that beeq starts."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

from beeq.process import plain_environment
from tests.cli.command import eventually

ROOT = Path(__file__).resolve().parents[2]
#: A worker with all that runs beside one: an embedded server, a guard, a pool of processes and its keeper.
WORKER = """
import asyncio, os, socket
from beeq import Queue
from beeq.supervision.end_guard import EndGuard
from tests.worker.process_handlers import knows

async def main():
    signals, _ = socket.socketpair()
    guard = EndGuard(signals, (60.0, 60.0))
    async with Queue("q", redis="embedded:data") as queue:
        queue.process(knows, executor="process")
        job = await queue.create_job({"name": "BEEQ_AI_API_KEY"}).save()
        running = asyncio.create_task(queue.run())
        print(await job.result(timeout=20_000), flush=True)
        await asyncio.to_thread(input)
        running.cancel()
    guard.close()

asyncio.run(main())
"""
BESIDE = ("keeper.py", "valkey-server", "end_guard_main.py", "keeper_main.py")


def processes_with(text: bytes, file: str) -> dict[int, str]:
    """Return the commands of processes, by their pids, whose environment or command line holds a text."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text in (entry / file).read_bytes():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found[int(entry.name)] = command
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found


def test_secrets_reach_the_handlers_and_nothing_else(tmp_path: Path) -> None:
    secret = secrets.token_hex(16)
    folder = tmp_path / "home"
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "BEEQ_AI_API_KEY": secret, "HOME": str(folder)}
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER],
        cwd=folder,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline().strip() == secret  # the handler has it
        holders = processes_with(secret.encode(), "environ")
        # All that runs beside the worker was started with this home.
        beside = [
            command
            for command in processes_with(f"HOME={folder}".encode(), "environ").values()
            if any(name in command for name in BESIDE)
        ]
        assert [name for name in BESIDE if not any(name in command for command in beside)] == []
        assert worker.pid in holders
        assert [command for command in holders.values() if any(name in command for name in BESIDE)] == []
        assert len(holders) == 2  # … and the handler's process
    finally:
        worker.communicate("\n", timeout=30)
    assert worker.returncode == 0
    eventually(lambda: not processes_with(f"HOME={folder}".encode(), "environ"))


def test_only_what_a_program_needs_to_start_is_plain() -> None:
    given = {"PATH": "/bin", "TMPDIR": "/tmp", "REDIS_URL": "redis://:x@y", "HOME": "/h", "PYTHONPATH": "/p"}
    assert plain_environment(given) == {"PATH": "/bin", "TMPDIR": "/tmp", "HOME": "/h"}
