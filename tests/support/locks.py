"""Locks that processes hold on files, seen from outside."""

from __future__ import annotations

import fcntl
from pathlib import Path


def is_free(lock: Path) -> bool:
    """Return whether no process holds the lock, or there is none."""
    if not lock.exists():
        return True
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
