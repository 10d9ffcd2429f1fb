"""npm's bee-queue: fetched once into the checkout's ``.node`` folder."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

#: The peer that everything is compared with.
BEE_QUEUE_VERSION = "2.0.0"

_CHECKOUT = Path(__file__).resolve().parents[2]
#: npm may have to fetch some hundred files.
_INSTALL_TIMEOUT_S = 300


class NodeMissing(Exception):
    """There is no Node, or npm cannot fetch bee-queue; the message says which."""


def install_bee_queue(cache: Path = _CHECKOUT / ".node") -> Path:
    """Return the ``node_modules`` folder that holds bee-queue, fetching it if it is not there yet.

    Safe to call from several processes: the first fetches, the others wait.

    Raises:
        NodeMissing: see there.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NodeMissing(f"interop needs {program} on PATH, and there is none")
    cache.mkdir(exist_ok=True)
    modules = cache / "node_modules"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed_version(modules) != BEE_QUEUE_VERSION:
            _install(cache)
    return modules


def _installed_version(modules: Path) -> str | None:
    manifest = modules / "bee-queue" / "package.json"
    if not manifest.exists() or not (modules / ".package-lock.json").exists():  # npm writes it last
        return None
    return BEE_QUEUE_VERSION if f'"version": "{BEE_QUEUE_VERSION}"' in manifest.read_text() else None


def _install(cache: Path) -> None:
    command = [
        "npm",
        "install",
        "--prefix",
        str(cache),
        f"bee-queue@{BEE_QUEUE_VERSION}",
        "--no-audit",
        "--no-fund",
    ]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise NodeMissing(f"npm did not fetch bee-queue within {_INSTALL_TIMEOUT_S} s") from None
    if done.returncode:
        raise NodeMissing(f"npm cannot fetch bee-queue: {done.stderr.strip()[-500:]}")
