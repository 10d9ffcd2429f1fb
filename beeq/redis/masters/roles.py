"""A server's role, asked by a command that the Redis user may run.

HELLO without arguments needs no admin right and changes nothing; where it is refused, or not known, ROLE and
INFO are tried; where all three are refused, PING still shows whether the server is there.
"""

from enum import Enum
from typing import Any

from beeq.errors import RedisRefused
from beeq.redis.resp import pack


class Role(Enum):
    """Whether a server takes writes; UNKNOWN where it does not say."""

    MASTER = "master"
    REPLICA = "replica"
    UNKNOWN = "unknown"


_ROLES = {b"master": Role.MASTER, b"primary": Role.MASTER, b"slave": Role.REPLICA, b"replica": Role.REPLICA}
#: In the order in which they are tried; the last one is never refused.
QUESTIONS = (pack("HELLO"), pack("ROLE"), pack("INFO", "replication"), pack("PING"))
PING = len(QUESTIONS) - 1
#: Temporary refusals: the same question may be answered later.
_NOT_NOW = ("LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN")


def is_refused(reply: Any) -> bool:
    """Return whether this server will never answer the question."""
    return isinstance(reply, RedisRefused) and reply.code not in _NOT_NOW


def role_in(reply: Any) -> Role:
    """Return the role that the reply to one of ``QUESTIONS`` names."""
    if isinstance(reply, list) and reply:
        if (role := _known(reply[0])) is not Role.UNKNOWN:  # ROLE
            return role
        for name, value in zip(reply[::2], reply[1::2], strict=False):  # HELLO
            if name == b"role":
                return _known(value)
    if isinstance(reply, bytes):  # INFO
        for line in reply.splitlines():
            name, _, value = line.partition(b":")
            if name == b"role":
                return _known(value.strip())
    return Role.UNKNOWN


def _known(said: Any) -> Role:
    return _ROLES.get(said, Role.UNKNOWN) if isinstance(said, bytes) else Role.UNKNOWN
