"""Under which conditions numbers were measured: machine, versions, load. Measures nothing itself."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import redis

import beeq


def conditions(client: redis.Redis, *, uvloop: bool, bee_queue_version: str) -> dict[str, Any]:
    """Return what a reader must know to compare, as JSON values."""
    server = client.info("server")
    node = subprocess.run(["node", "--version"], check=True, capture_output=True, text=True)
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
        "server": f"valkey {server['valkey_version']}",
        "connection": "TCP on loopback, server and workers on one machine",
        "node": node.stdout.strip(),
        "bee-queue": bee_queue_version,
        "settings": "each library's defaults",
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
