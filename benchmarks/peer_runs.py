"""Installs a peer into an environment of its own, and drains its queue once. Prints nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from benchmarks.measures import CACHE, clear, watch
from benchmarks.peer_list import Peer

_HERE = Path(__file__).resolve().parent
_WORKERS = _HERE / "workers"
_INSTALL_TIMEOUT_S = 300
_ENQUEUE_TIMEOUT_S = 120
#: How long a worker may take to end after SIGTERM.
_END_S = 10
#: Jobs that ``workers/produce.py`` enqueues before it looks at the clock.
FIRST = 16
#: How much of its output a failed process is quoted with.
_QUOTED = 2000


class PeerFailed(Exception):
    """A peer could not be installed, or did not do its jobs; the message says which and why."""


def install(peer: Peer, cache: Path = CACHE) -> Path:
    """Return the folder of the peer's environment, making it on first use and when a version has changed.

    Raises:
        PeerFailed: pip or npm could not.
    """
    place = cache / "peers" / peer.name
    place.mkdir(parents=True, exist_ok=True)
    (cache / ".gitignore").write_text("*\n")  # nothing in there is for git
    installed, wanted = place / "installed.txt", "\n".join(peer.packages)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if installed.exists() and installed.read_text() == wanted:
            return place
        shutil.rmtree(place)
        if peer.is_node:
            place.mkdir()
            _run(peer, "npm", "install", "--prefix", str(place), "--no-audit", "--no-fund", *peer.packages)
        else:
            _run(peer, peer.python or sys.executable, "-m", "venv", str(place))
            pip = (str(place / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check")
            _run(peer, *pip, "--quiet", *peer.packages)
        installed.write_text(wanted)
    return place


def drain(
    peer: Peer, place: Path, client: redis.Redis, url: str, *, concurrency: int, count: int, log: Path
) -> float:
    """Return the jobs a second of one worker process that finds ``count`` jobs which do nothing.

    The jobs come from the peer's own API. From the moment the harness first sees finished jobs until it
    sees the last, as for beeq. ``place`` is what ``install`` returned; the worker writes its log to ``log``.

    Raises:
        PeerFailed: the server lacks what it needs; the jobs were not enqueued, or not done in time, or the
            worker ended.
    """
    clear(client)
    _ask_for_what_it_needs(peer, client)
    environment = {**_environment(place, url), "BENCH_CONCURRENCY": str(concurrency)}
    producer = (peer.worker[:2] if peer.is_node else ("python", "enqueue.py", peer.module)) + (str(count),)
    _run(peer, *producer, environment=environment, timeout_s=_ENQUEUE_TIMEOUT_S)
    if peer.finished(client, count) != 0:
        raise PeerFailed(f"{peer.name} did not enqueue {count} jobs")

    command = [part.format(concurrency=concurrency, url=url) for part in peer.worker]
    with _worker(command, environment, log) as worker:

        def check() -> None:
            if worker.poll() is not None:
                said = log.read_text(errors="replace")[-_QUOTED:]
                raise PeerFailed(f"{peer.name}'s worker ended with {worker.returncode}: {said}")

        try:
            jobs, seconds, _, _ = watch(
                lambda: peer.finished(client, count), count, check=check, note=lambda: None
            )
        except RuntimeError as late:
            said = log.read_text(errors="replace")[-_QUOTED:]
            raise PeerFailed(f"{peer.name}: {late}: {said}") from None
    return jobs / seconds


def produce(peer: Peer, place: Path, client: redis.Redis, url: str, *, threads: int, count: int) -> float:
    """Return the jobs a second that one process enqueues one after the other in each of its threads.

    Raises:
        PeerFailed: they were not enqueued.
    """
    clear(client)
    environment = _environment(place, url, _HERE.parent)
    command = ("python", "produce.py", peer.module, str(count), str(threads))
    seconds = float(_run(peer, *command, environment=environment, timeout_s=_ENQUEUE_TIMEOUT_S))
    if missing := peer.finished(client, count + FIRST):
        raise PeerFailed(f"{peer.name} did not enqueue {missing} of {count} jobs")
    return count / seconds


def _environment(place: Path, url: str, *paths: Path) -> dict[str, str]:
    return {
        **os.environ,
        "BENCH_URL": url,
        "NODE_PATH": str(place / "node_modules"),
        "PATH": os.pathsep.join((str(place / "bin"), os.environ["PATH"])),
        "PYTHONPATH": os.pathsep.join(map(str, (_WORKERS, *paths))),
    }


def _ask_for_what_it_needs(peer: Peer, client: redis.Redis) -> None:
    server, command = peer.needs
    if command:
        try:
            client.execute_command(*command)  # type: ignore[no-untyped-call]
        except redis.ResponseError as refusal:
            raise PeerFailed(f"{peer.name} needs {server}: this server says {refusal}") from None
        clear(client)


@contextmanager
def _worker(command: list[str], environment: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker, and end it and its children in the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [shutil.which(command[0], path=environment["PATH"]) or command[0], *command[1:]],
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=_WORKERS,
            env=environment,
            start_new_session=True,  # a group, for the children that some have
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(_END_S)


def _run(
    peer: Peer,
    *command: str,
    environment: dict[str, str] | None = None,
    timeout_s: float = _INSTALL_TIMEOUT_S,
) -> str:
    """Return what the command prints. Raises PeerFailed."""
    path = None if environment is None else environment["PATH"]
    program = shutil.which(command[0], path=path)
    if program is None:
        raise PeerFailed(f"{peer.name} needs {command[0]} on PATH")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            cwd=_WORKERS,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"{peer.name}: {command[0]} took more than {timeout_s} s") from None
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-_QUOTED:]
        raise PeerFailed(f"{peer.name}: {command[0]} ended with {done.returncode}: {said}")
    return done.stdout
