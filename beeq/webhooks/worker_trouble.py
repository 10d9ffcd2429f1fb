"""Failures that are this worker's own, such as that it has no file free: they tell nothing of a receiver.

That a network is unreachable (``ENETUNREACH``) is not among them: it is also what a name says whose only
addresses are of a kind that this machine has none of, and names are strangers' to choose. No IO.
"""

import errno
import os
import socket

from beeq.errors import BeeqError

_OWN_ERRNOS = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EADDRNOTAVAIL,  # no port free to call from
        errno.ENETDOWN,
    }
)


class WorkerTrouble(BeeqError):
    """This worker can call nobody at the moment. The message names neither the host nor the URL."""


def worker_trouble(error: BaseException) -> WorkerTrouble | None:
    """Return what to raise in place of an error whose cause is this worker's own; None if it is not."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, socket.gaierror):
            is_own = found.errno == socket.EAI_MEMORY
            return WorkerTrouble("this worker cannot look up a name: no memory") if is_own else None
        if isinstance(found, OSError) and found.errno in _OWN_ERRNOS:
            return WorkerTrouble(f"this worker cannot open a connection: {os.strerror(found.errno)}")
        found = found.exceptions[0] if isinstance(found, BaseExceptionGroup) else found.__cause__
    return None
