"""The notes on a job's failed attempts: which worker, from when to when, with which error.

The text of one job in ``beeq:attempts`` has a line for each attempt, the newest first; ``lua/exchange.lua``
puts it together. A line is ``[created,started,ended,worker,error]``, with times in ms since the epoch.
"""

from dataclasses import dataclass

from beeq.errors import kind_of, text_of
from beeq.protocol.codec import dumps, loads
from beeq.protocol.options import SAFE_INTEGER

#: A longer error text is cut; the record has all of it, with the trace.
MAX_ERROR_CHARACTERS = 500
#: Beeq writes a fifth of so many lines; more lines, by others, are not read.
_MOST_LINES = 100
_MEMBERS = 5


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One attempt that failed on a beeq worker. Times are ms since the epoch, by that worker's clock.

    Attributes:
        worker: the process, ``<host>:<pid>:<8 hexadecimal digits>``.
        started_ms: when it took the job.
        ended_ms: when the attempt failed.
        error: type and text, perhaps cut.
    """

    worker: str
    started_ms: int
    ended_ms: int
    error: str


def encode_attempt(
    *, created_ms: int, started_ms: int, ended_ms: int, worker: str, error: BaseException
) -> bytes:
    """Return the line of a failed attempt; ``created_ms`` is the job's creation time, 0 if unknown."""
    text = f"{kind_of(error)}: {text_of(error)}"
    if len(text) > MAX_ERROR_CHARACTERS:
        text = text[: MAX_ERROR_CHARACTERS - 1] + "…"
    return dumps([created_ms, started_ms, ended_ms, worker, text])


def decode_attempts(lines: bytes, *, created_ms: int | None) -> list[FailedAttempt]:
    """Return a job's failed attempts, the newest first; those of an earlier job of its id are left out.

    ``created_ms`` is the job's creation time, None if its record cannot be read. A line that no beeq worker
    has written is passed over.
    """
    attempts = []
    for line in lines.split(b"\n", _MOST_LINES)[:_MOST_LINES]:
        try:
            members = loads(line)
        except ValueError:
            continue
        if not isinstance(members, list) or len(members) < _MEMBERS:
            continue
        created, started, ended, worker, error = members[:_MEMBERS]
        if created_ms is not None and created != created_ms:
            continue
        is_text = isinstance(worker, str) and isinstance(error, str)
        if is_text and all(isinstance(at, int) and abs(at) <= SAFE_INTEGER for at in (started, ended)):
            attempts.append(FailedAttempt(worker, started, ended, error))
    return attempts
