"""What the status mirror costs: drain at concurrency 100 without it, with it, and with it away or slow.

Prints one line a case, medians of several rounds: jobs/s, and the ratio to the drain with the mirror
off. In the end, how many documents a second the writer alone brings to the server. Needs the extras
``mongo`` and ``dev``; starts its own servers. The MongoDB-protocol server works on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from beeq import Queue
from beeq.mirror.mirror import Mirror
from benchmarks.servers import MongoServer, Server, free_port

_QUEUE = "webhook-processing"
_AWAY = "mongodb://127.0.0.1:1/bench"
_SLOW_S = 0.5
_PATIENCE_S = 120.0


async def _work(redis_url: str, mongo_url: str, count: int) -> None:
    """Drain the queue in this process, which mirrors if it has a Mongo URL, and print the seconds."""
    queue = Queue(_QUEUE, redis=redis_url, mirrored=bool(mongo_url), get_events=False, store_jobs=False)
    mirror = Mirror(mongo_url, redis=redis_url) if mongo_url else None
    over = asyncio.Event()
    left = count

    @queue.process(concurrency=100)
    async def handler(_job: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            over.set()

    if mirror is not None:
        mirror.start()
    started_s = time.perf_counter()
    async with asyncio.timeout(_PATIENCE_S):
        await over.wait()
    print(time.perf_counter() - started_s)
    await queue.close()
    if mirror is not None:
        await mirror.stop()


async def _fill(redis_url: str, count: int, *, mirrored: bool) -> None:
    async with Queue(_QUEUE, redis=redis_url, is_worker=False, mirrored=mirrored) as queue:
        await queue.destroy()
        jobs = [queue.create_job({"payload": {"n": n}}).set_id(f"job-{n}") for n in range(count)]
        await queue.save_all(jobs)


async def _flush(redis_url: str, mongo_url: str, count: int) -> float:
    """Return how many documents a second the writer brings to MongoDB when nothing else happens."""
    await _fill(redis_url, count, mirrored=True)
    mirror = Mirror(mongo_url, redis=redis_url, is_alone=True)
    started_s = time.perf_counter()
    mirror.start()
    await mirror.flush(_PATIENCE_S)
    rate = count / (time.perf_counter() - started_s)
    await mirror.stop()
    return rate


async def _delay(port: int, target_port: int) -> None:
    """Forward each request half a second later."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
        while data := await reader.read(1 << 16):
            await asyncio.sleep(delay_s)
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", target_port)
        await asyncio.gather(
            pump(reader, server_writer, _SLOW_S), pump(server_reader, writer, 0), return_exceptions=True
        )

    async with await asyncio.start_server(serve, "127.0.0.1", port) as server:
        await server.serve_forever()


@contextmanager
def _slow(target_port: int) -> Iterator[str]:
    port = free_port()
    process = subprocess.Popen([sys.executable, __file__, "--delay", str(port), str(target_port)])
    try:
        yield f"mongodb://127.0.0.1:{port}/bench"
    finally:
        process.kill()
        process.wait()


def _drain(redis_url: str, mongo_url: str, count: int) -> float:
    asyncio.run(_fill(redis_url, count, mirrored=bool(mongo_url)))
    ran = subprocess.run(
        [sys.executable, __file__, "--work", redis_url, mongo_url, str(count)],
        check=True,
        capture_output=True,
        text=True,
    )
    return count / float(ran.stdout)


def _run(action: object) -> None:
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError:
        asyncio.run(action)  # type: ignore[arg-type]  # a coroutine
    else:
        uvloop.run(action)  # type: ignore[arg-type]  # a coroutine


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=60_000)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--delay", nargs=2, type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        redis_url, mongo_url, count = asked.work
        _run(_work(redis_url, mongo_url, int(count)))
        return
    if asked.delay:
        asyncio.run(_delay(*asked.delay))
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "redis").mkdir()
        (Path(folder) / "mongo").mkdir()
        with (
            Server(Path(folder) / "redis") as redis,
            MongoServer(Path(folder) / "mongo") as mongo,
            _slow(mongo.port) as slow_url,
        ):
            cases = {"off": "", "healthy": mongo.url("bench"), "away": _AWAY, "500 ms a call": slow_url}
            rates: dict[str, list[float]] = {name: [] for name in cases}
            for _ in range(asked.rounds):
                for name, mongo_url in cases.items():
                    rates[name].append(_drain(redis.url, mongo_url, asked.jobs))
            off = statistics.median(rates["off"])
            for name, measured in rates.items():
                rate = statistics.median(measured)
                print(f"mirror {name:<14} {rate:>8,.0f} jobs/s  {rate / off:.2f}")
            rate = asyncio.run(_flush(redis.url, mongo.url("alone"), 3000))
            print(f"writer alone          {rate:>8,.0f} documents/s")


if __name__ == "__main__":
    main()
