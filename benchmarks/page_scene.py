"""The scene of the page in ``scale.py``: how soon each screen begins to come, and what fifty open pages cost.

``beeq web`` runs as a process of its own, as an operator starts it, on what the scene has put into Redis.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from beeq.protocol.keys import Keys, registry_key
from beeq.web.page.searches import LONGEST_S
from benchmarks.servers import PATIENCE_S, free_port

#: Opens a block in which another client pings; adds the longest wait to the list.
Pinging = Callable[[str, list[str]], AbstractContextManager[None]]

_ROOT = Path(__file__).resolve().parents[1]
_QUEUES, _WAITING, _FAILED, _RUNNING = 50, 1_000_000, 200_000, 1000
_PREFIX = "bq"
_AT_ONCE = 1000
_TIMES = 5
_STREAMS, _WATCHED_S, _CALM_S = 50, 20.0, 3.0
#: A quick run's numbers mean nothing: it only sees that there are some.
_QUICK_WATCHED_S, _QUICK_CALM_S = 0.5, 0.1
_PAUSE_S = 0.3
_TICKS = os.sysconf("SC_CLK_TCK")
_TRACE = "\n".join(["  at some line"] * 20)
_ERRORS = ("ConnectError: host {} is away", "TimeoutError: no answer in {} s", "ValueError: no such town {}")


async def play(stage: Any, pinging: Pinging) -> None:
    """Fill fifty queues, the first of them with half of all, and ask for every screen."""
    waiting, failed, running = stage.count(_WAITING), stage.count(_FAILED), stage.count(_RUNNING)
    names = [f"scale-{n:02}" for n in range(_QUEUES)]

    async def fill() -> None:
        for n, name in enumerate(names):
            share = 2 if not n else 2 * (_QUEUES - 1)
            _fill(stage, Keys(_PREFIX, name), waiting // share, failed // share, running // share)
        stage.client.zadd(registry_key(_PREFIX), dict.fromkeys(names, time.time() * 1000))

    await stage.step(f"{_QUEUES} queues, {waiting} waiting, {failed} failed: put", fill)
    async with _web(stage.url) as (port, pid):
        for title, path in _screens(names[0], waiting // 2):
            waits: list[str] = []
            with pinging(stage.url, waits):
                first_s, *more_s = [await _first_byte_s(port, path) for _ in range(_TIMES)]
                if stage.is_full:
                    await asyncio.sleep(_PAUSE_S)  # what goes on behind it is pinged, too
            value = f"{first_s * 1000:.0f} ms, then {max(more_s) * 1000:.0f} ms"
            print(f"{title:<52} {value:>20}  PING waits {waits[0]}", flush=True)
        if stage.is_full:
            await asyncio.sleep(LONGEST_S)  # the searches end
        watched_s = _WATCHED_S if stage.is_full else _QUICK_WATCHED_S
        waits = []
        with pinging(stage.url, waits):
            busy = await _busy_of_streams(
                port, pid, names, calm_s=_CALM_S if stage.is_full else _QUICK_CALM_S, watched_s=watched_s
            )
        title = f"{_STREAMS} open pages, for {watched_s:g} s"
        print(f"{title:<52} {busy:>17.1f} % of a core  PING waits {waits[0]}", flush=True)


def _screens(queue: str, waiting: int) -> Iterable[tuple[str, str]]:
    """Return title and path of every screen."""
    return (
        ("the overview", "/"),
        ("a queue with half of all", f"/q/{queue}"),
        ("its waiting jobs, far behind", f"/q/{queue}/waiting?at=0.{waiting - 100}"),
        ("its failed jobs", f"/q/{queue}/failed"),
        ("its failed jobs, by a text that none has", f"/q/{queue}/failed?text=nothing%20of%20this"),
        (
            "its failed jobs, by a kind of error",
            f"/q/{queue}/failed?kind=ValueError%3A%20no%20such%20town%20%23",
        ),
        ("its waiting jobs, by a value", f"/q/{queue}/waiting?where=data.user%3D7"),
        ("the job that waits behind all", f"/q/{queue}/jobs/{waiting - 1}"),
        ("a job that failed", f"/q/{queue}/jobs/f7"),
        ("failures", "/failures"),
        ("workers", "/workers"),
        ("system", "/system"),
        ("an id looked for", "/search?q=f7"),
        ("a text looked for that none has", "/search?q=nothing%20of%20this"),
    )


def _fill(stage: Any, keys: Keys, waiting: int, failed: int, running: int) -> None:
    now_ms = round(time.time() * 1000)
    for first in range(0, waiting, _AT_ONCE):
        ids = [str(n) for n in range(first, min(first + _AT_ONCE, waiting))]
        stage.client.hset(keys.jobs, mapping={each: _record(int(each), now_ms) for each in ids})
        stage.client.lpush(keys.waiting, *ids)
    for first in range(0, failed, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, failed))
        records: Any = {
            f"f{n}": _record(n, now_ms, f"{_ERRORS[n % len(_ERRORS)].format(n)}\n{_TRACE}") for n in numbers
        }
        stage.client.hset(keys.jobs, mapping=records)
        stage.client.sadd(keys.failed, *records)
    ids = [f"r{n}" for n in range(running)]
    if ids:
        stage.client.hset(keys.jobs, mapping={each: _record(1, now_ms) for each in ids})
        stage.client.lpush(keys.active, *ids)


def _record(n: int, now_ms: int, *traces: str) -> str:
    return json.dumps(
        {
            "data": {"user": n % 1000, "to": f"user-{n}@example.com"},
            "options": {"timestamp": now_ms, "stacktraces": traces},
            "status": "failed" if traces else "created",
            "progress": 0,
        }
    )


@asynccontextmanager
async def _web(url: str) -> AsyncIterator[tuple[int, int]]:
    """Run ``beeq web``; yield its port and its process's number."""
    port = free_port()
    command = [sys.executable, "-m", "beeq_cli", "web", "-u", url, "--port", str(port)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "cli")])}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:  # noqa: ASYNC220 - nothing else runs yet
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not await _answers(port):  # noqa: ASYNC110 - it gives no signal
                    await asyncio.sleep(0.05)
            yield port, process.pid
        finally:
            process.send_signal(signal.SIGTERM)


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def _first_byte_s(port: int, path: str) -> float:
    """Ask for a screen; return how long its first byte took."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        began_s = time.perf_counter()
        _ask(writer, path)
        status = await reader.readline()
        took_s = time.perf_counter() - began_s
        await reader.read()
    finally:
        writer.close()
    if status.split(b" ")[1:2] not in ([b"200"], [b"303"]):
        raise AssertionError(f"{path}: {status!r}")
    return took_s


def _ask(writer: asyncio.StreamWriter, path: str) -> None:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())


async def _busy_of_streams(
    port: int, pid: int, names: list[str], *, calm_s: float, watched_s: float
) -> float:
    """Keep streams of several screens open; return how many hundredths of a core the page takes for them.

    They are watched for ``watched_s``, once they have had ``calm_s`` to begin.
    """
    paths = ["/events"] * 20 + [f"/events?queue={name}" for name in names[:15]]
    paths += [f"/events?queue={names[0]}&job={n}" for n in range(_STREAMS - len(paths))]
    listening = [asyncio.create_task(_listen(port, path)) for path in paths]
    try:
        await asyncio.sleep(calm_s)
        before, began_s = _cpu_s(pid), time.perf_counter()
        await asyncio.sleep(watched_s)
        return 100 * (_cpu_s(pid) - before) / (time.perf_counter() - began_s)
    finally:
        for each in listening:
            each.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


async def _listen(port: int, path: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        _ask(writer, path)
        while await reader.read(65_536):
            pass
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _cpu_s(pid: int) -> float:
    """Return the processor time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
