"""The conditions of a measurement: machine, versions, load, and other programs at work."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import redis

import beeq


def conditions(client: redis.Redis, *, uvloop: bool, bee_queue_version: str) -> dict[str, Any]:
    """Return the facts for comparing beeq with bee-queue, as JSON values."""
    node = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True)
    return {
        **machine(client, uvloop=uvloop),
        "node": node.stdout.strip(),
        "bee-queue": bee_queue_version,
        "settings": "each library's defaults",
    }


def machine(client: redis.Redis, *, uvloop: bool) -> dict[str, Any]:
    """Return the facts about the machine and its software, as JSON values."""
    server = client.info("server")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "event_loop": f"uvloop {metadata.version('uvloop')}" if uvloop else "asyncio",
        "beeq": beeq.__version__,
        "redis-py": metadata.version("redis"),
        "hiredis": metadata.version("hiredis"),
        "orjson": metadata.version("orjson"),
        "server": _version(server),
        "connection": "TCP on loopback, server and workers on one machine",
    }


@dataclass(frozen=True)
class Ticks:
    """The time of all CPUs together since the machine started, in ticks."""

    total: int
    busy: int
    #: Time in which a virtual machine would have run and its host ran something else; not in ``busy``.
    stolen: int


def busy_before() -> dict[str, Any]:
    """Watch the machine for a second in which nothing is measured, and return how busy it is.

    Returns:
        ``busy_before`` and ``stolen_before``: shares of all CPUs, 0 to 1; nothing on systems without /proc.
    """
    before = ticks()
    if before is None:
        return {}
    time.sleep(1)
    after = ticks()
    assert after is not None  # noqa: S101 - /proc does not go away
    total = max(after.total - before.total, 1)
    return {
        "busy_before": round((after.busy - before.busy) / total, 3),
        "stolen_before": round((after.stolen - before.stolen) / total, 3),
    }


class Bystanders:
    """Everything on the machine but this process and its children, from now on."""

    def __init__(self) -> None:
        self._ticks = ticks()
        self._own_s = own_cpu_s()

    def facts(self) -> dict[str, Any]:
        """Return what they used until now; call it once every measured process has ended.

        Returns:
            ``load_average_end``; ``others_busy`` and ``stolen``: shares of all CPUs, 0 to 1, without
            them on systems without /proc.
        """
        facts: dict[str, Any] = {"load_average_end": [round(load, 2) for load in os.getloadavg()]}
        after = ticks()
        if self._ticks is not None and after is not None:
            own_ticks = (own_cpu_s() - self._own_s) * os.sysconf("SC_CLK_TCK")
            total = max(after.total - self._ticks.total, 1)
            others = after.busy - self._ticks.busy - own_ticks
            # Ticks are coarser than the children's CPU times.
            facts["others_busy"] = round(max(others, 0) / total, 3)
            facts["stolen"] = round((after.stolen - self._ticks.stolen) / total, 3)
        return facts


def own_cpu_s() -> float:
    """Return the CPU time of this process and of all its children that have ended, in s."""
    every = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in every)


def ticks() -> Ticks | None:
    """Return what the CPUs have done so far; ``None`` on systems without /proc."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return None
    user, nice, system, idle, iowait, irq, softirq, stolen = map(int, stat.read_text().split()[1:9])
    busy = user + nice + system + irq + softirq
    return Ticks(busy + idle + iowait + stolen, busy, stolen)


def _version(server: dict[str, Any]) -> str:
    if "valkey_version" in server:
        return f"valkey {server['valkey_version']}"
    return f"redis {server['redis_version']}"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
