"""Failures of this worker itself, such as a lack of free files: they say nothing about a receiver.

An unreachable network (``ENETUNREACH``) is not among them: an untrusted name causes it, too, if its only
addresses are of a family that this machine does not have. No IO.
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


class LocalFailure(BeeqError):
    """This worker cannot make calls at the moment. The message names neither the host nor the URL."""


def local_failure(error: BaseException) -> LocalFailure | None:
    """Return the LocalFailure to raise for an error of this worker itself; None for any other."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, socket.gaierror):
            is_own = found.errno == socket.EAI_MEMORY
            return LocalFailure("this worker cannot look up a name: no memory") if is_own else None
        if isinstance(found, OSError) and found.errno in _OWN_ERRNOS:
            return LocalFailure(f"this worker cannot open a connection: {os.strerror(found.errno)}")
        found = found.exceptions[0] if isinstance(found, BaseExceptionGroup) else found.__cause__
    return None
