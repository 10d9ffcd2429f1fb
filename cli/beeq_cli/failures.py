"""What a failed command says and exits with: 1 failure, 3 cannot connect; 2, usage, is click's own."""

from __future__ import annotations

from beeq.errors import BeeqError, RedisUnavailable
from beeq.redis.urls import redact

FAILURE = 1
CANNOT_CONNECT = 3


def explained(error: BaseException) -> tuple[str, int]:
    """Return what to say of an error, without passwords, and the exit code."""
    if isinstance(error, RedisUnavailable):
        return f"cannot connect to Redis: {redact(str(error))}", CANNOT_CONNECT
    if isinstance(error, BeeqError):
        return redact(str(error)), FAILURE
    return redact(f"{type(error).__name__}: {error}"), FAILURE
