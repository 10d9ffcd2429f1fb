"""The libraries that ``peers.py`` measures beside beeq: versions, commands, where to see their progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import redis


@dataclass(frozen=True)
class Peer:
    """One library. Commands run in its own environment; ``{concurrency}`` is replaced by the number."""

    name: str
    #: What is installed, pinned; the first names the library.
    packages: tuple[str, ...]
    #: The worker, as its documentation starts it.
    worker: tuple[str, ...]
    #: The module in ``workers/`` that has its job.
    module: str
    #: How many of so many jobs are finished, by what any client can see in Redis.
    finished: Callable[[redis.Redis, int], int]
    #: Concurrency → jobs: enough for a second or two. What is missing, it cannot do in one process.
    jobs: Mapping[int, int]
    note: str = ""
    is_node: bool = False
    #: The Python that it needs, if it is not this one.
    python: str = ""
    #: Requirements that only some servers meet: their version, and a command that others refuse.
    needs: tuple[str, tuple[str, ...]] = ("", ())

    @property
    def version(self) -> str:
        """The version of the library itself."""
        return self.packages[0].rpartition("@" if self.is_node else "==")[2]


def _stream_acknowledged(client: redis.Redis, _count: int) -> int:
    """Return how many entries of taskiq's stream were read and acknowledged."""
    (group,) = client.xinfo_groups("bench")
    return int(group["entries-read"] or 0) - int(group["pending"])


_UVLOOP = "uvloop==0.23.0"
_HIREDIS = "hiredis==3.5.0"

#: The reference of every run; ``measures.py`` drives it, like beeq itself.
BEE_QUEUE = Peer(
    "bee-queue",
    ("bee-queue@2.0.0",),
    ("node", "bee_queue.js"),
    "bee_queue.js",
    lambda client, _count: int(client.scard("bq:bench:succeeded")),
    {1: 6_000, 10: 20_000, 100: 25_000},
    "Node",
    is_node=True,
)

PEERS = (
    Peer(
        "bullmq",
        ("bullmq@6.7.0", "ioredis@6.0.0"),
        ("node", "bullmq_worker.js"),
        "bullmq_worker.js",
        lambda client, _count: int(client.zcard("bull:bench:completed")),
        {1: 6_000, 10: 12_000, 100: 15_000},
        "Node",
        is_node=True,
    ),
    Peer(
        "bullmq-python",
        ("bullmq==3.4.4", _HIREDIS, _UVLOOP),
        ("python", "bullmq_worker.py"),
        "bullmq_worker",
        lambda client, _count: int(client.zcard("bull:bench:completed")),
        {1: 5_000, 10: 4_000, 100: 5_000},
        "asyncio, uvloop",
    ),
    Peer(
        "huey",
        ("huey==3.5.4", "redis==8.1.0", _HIREDIS),
        ("huey_consumer", "huey_worker.huey", "-w", "{concurrency}", "-q"),
        "huey_worker",
        lambda client, count: count - int(client.llen("huey.redis.bench")),
        {1: 10_000, 10: 6_000, 100: 6_000},
        "threads; counted when taken",
    ),
    Peer(
        "dramatiq",
        ("dramatiq[redis]==2.2.1", "redis==8.1.0", _HIREDIS),
        ("dramatiq", "dramatiq_worker", "--processes", "1", "--threads", "{concurrency}"),
        "dramatiq_worker",
        lambda client, count: count - int(client.hlen("dramatiq:default.msgs")),
        {1: 600, 10: 4_000, 100: 3_000},
        "threads",
    ),
    Peer(
        "saq",
        # saq 0.26.4 imports typing_extensions without asking for it.
        ("saq[redis,hiredis]==0.26.4", "typing-extensions==4.16.0", "redis==7.4.1", _HIREDIS, _UVLOOP),
        ("saq", "saq_worker.settings"),
        "saq_worker",
        lambda client, count: count - int(client.zcard("saq:bench:incomplete")),
        {1: 2_000, 10: 4_000, 100: 4_000},
        "asyncio, uvloop",
    ),
    Peer(
        "arq",
        ("arq==0.28.0", "redis==5.3.1", _HIREDIS, _UVLOOP),
        ("arq", "arq_worker.WorkerSettings", "--custom-log-dict", "arq_worker.QUIET"),
        "arq_worker",
        lambda client, count: count - int(client.zcard("arq:queue")),
        {1: 800, 10: 3_000, 100: 3_000},
        "asyncio, uvloop; looks for jobs every ms instead of every 0.5 s",
    ),
    Peer(
        "taskiq",
        ("taskiq==0.13.0", "taskiq-redis==1.2.4", "redis==8.1.0", _HIREDIS, _UVLOOP),
        (
            *("taskiq", "worker", "taskiq_worker:broker", "--workers", "1"),
            *("--max-async-tasks", "{concurrency}", "--log-level", "WARNING"),
        ),
        "taskiq_worker",
        _stream_acknowledged,
        {1: 5_000, 10: 6_000, 100: 6_000},
        "asyncio, uvloop; a stream, results not kept",
    ),
    Peer(
        "rq",
        ("rq==3.0.0", "redis==8.1.0", _HIREDIS),
        ("rq", "worker", "bench", "--url", "{url}", "--quiet"),
        "rq_worker",
        lambda client, _count: int(client.zcard("rq:finished:bench")),
        {1: 200},
        "forks for each job, one at a time",
    ),
    Peer(
        "rq-simple",
        ("rq==3.0.0", "redis==8.1.0", _HIREDIS),
        ("rq", "worker", "bench", "--url", "{url}", "--quiet", "--worker-class", "rq.SimpleWorker"),
        "rq_worker",
        lambda client, _count: int(client.zcard("rq:finished:bench")),
        {1: 1_500},
        "rq's SimpleWorker: no fork, one at a time",
    ),
    Peer(
        "celery",
        ("celery[redis]==5.7.0", "redis==8.1.0", _HIREDIS),
        (
            *("celery", "--app", "celery_worker", "worker"),
            *("--pool", "threads", "--concurrency", "{concurrency}"),
        ),
        "celery_worker",
        lambda client, count: count - int(client.llen("celery")) - int(client.hlen("unacked")),
        {1: 2_000, 10: 3_000, 100: 3_000},
        "threads, results not kept",
    ),
    Peer(
        "streaq",
        ("streaq==7.2.0", _UVLOOP),
        ("streaq", "run", "streaq_worker:worker"),
        "streaq_worker",
        lambda client, count: count - int(client.xlen("streaq:bench:queues:normal")),
        {1: 1_500, 10: 3_000, 100: 4_000},
        "asyncio, uvloop",
    ),
    Peer(
        "chasquimq",
        ("chasquimq==1.3.0", "redis==6.4.0", _HIREDIS, _UVLOOP),
        ("python", "chasquimq_worker.py"),
        "chasquimq_worker",
        lambda client, count: count - int(client.xlen("{chasqui:bench}:stream")),
        {1: 20_000, 10: 40_000, 100: 50_000},
        "Rust, with handlers on asyncio, uvloop; no events, nothing kept",
        needs=("Redis 8.6", ("XADD", "needed", "IDMP", "a", "b", "*", "c", "d")),
    ),
    Peer(
        "mayu",
        ("mayu==0.2.5",),
        (
            *("mayu", "worker", "mayu_worker:app", "--mode", "thread"),
            *("--threads", "{concurrency}", "--log-level", "ERROR"),
        ),
        "mayu_worker",
        lambda client, count: count - int(client.xlen("mayu:{default}:stream")),
        {1: 8_000, 10: 15_000, 100: 15_000},
        "Rust, with handlers in threads; Python 3.13",
        python="python3.13",
    ),
)
