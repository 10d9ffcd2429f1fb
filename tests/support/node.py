"""Packages of npm that tests run against, each set fetched once into a folder of the checkout."""

from __future__ import annotations

import fcntl
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

#: The peer that everything is compared with.
BEE_QUEUE_VERSION = "2.0.0"
#: The reader of the mirror.
PAYLOAD_VERSION = "3.90.2"

_CHECKOUT = Path(__file__).resolve().parents[2]
#: The web page of bee-queue's Node side.
ARENA_VERSION = "4.10.0"
#: npm may have to fetch some hundred files.
_INSTALL_TIMEOUT_S = 240


class NodeMissing(Exception):
    """There is no Node, or npm cannot fetch a package; the message says which."""


def install_bee_queue(folder: Path = _CHECKOUT / ".node") -> Path:
    """Return the ``node_modules`` folder that holds bee-queue; see ``install``."""
    return install(folder, {"bee-queue": BEE_QUEUE_VERSION})


def install_payload(folder: Path = _CHECKOUT / ".node-payload") -> Path:
    """Return the ``node_modules`` folder that holds Payload and its MongoDB adapter; see ``install``."""
    return install(folder, {"payload": PAYLOAD_VERSION, "@payloadcms/db-mongodb": PAYLOAD_VERSION})


def install_arena(folder: Path = _CHECKOUT / ".node-arena") -> Path:
    """Return the ``node_modules`` folder that holds Arena and bee-queue; see ``install``."""
    return install(folder, {"bull-arena": ARENA_VERSION, "bee-queue": BEE_QUEUE_VERSION})


def install(folder: Path, versions: Mapping[str, str]) -> Path:
    """Return the ``node_modules`` of a folder that holds these packages, fetching them if they are not there.

    Safe to call from several processes: the first fetches, the others wait.

    Raises:
        NodeMissing: see there.
    """
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise NodeMissing(f"these tests need {program} on PATH, and there is none")
    folder.mkdir(exist_ok=True)
    modules = folder / "node_modules"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if any(_installed_version(modules, name) != version for name, version in versions.items()):
            _install(folder, versions)
    return modules


def _installed_version(modules: Path, name: str) -> str | None:
    manifest = modules / name / "package.json"
    if not manifest.exists() or not (modules / ".package-lock.json").exists():  # npm writes it last
        return None
    return str(json.loads(manifest.read_text())["version"])


def _install(folder: Path, versions: Mapping[str, str]) -> None:
    names = " and ".join(versions)
    wanted = [f"{name}@{version}" for name, version in versions.items()]
    command = ["npm", "install", "--prefix", str(folder), *wanted]
    command += ["--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise NodeMissing(f"npm did not fetch {names} within {_INSTALL_TIMEOUT_S} s") from None
    if done.returncode:
        raise NodeMissing(f"npm cannot fetch {names}: {done.stderr.strip()[-500:]}")
