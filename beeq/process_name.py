"""This process's name, as others read it: in the registry of workers, as a consumer of the outbox."""

from __future__ import annotations

import os
import secrets
import socket

#: Name of this process in the registries of all its queues; a fork gets its own.
_process_names: dict[int, str] = {}


def process_name() -> str:
    """Return this process's name: host, process id, and something no other process has."""
    pid = os.getpid()
    if pid not in _process_names:
        _process_names.clear()
        _process_names[pid] = f"{socket.gethostname()}:{pid}:{secrets.token_hex(4)}"
    return _process_names[pid]
