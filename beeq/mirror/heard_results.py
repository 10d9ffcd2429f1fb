"""Results of succeeded jobs from the events channels: a Node worker keeps them nowhere else.

Every process with a mirror collects them, since any may write the job's document. Best effort: a result that
was published while no process listened, or was evicted, is missing in the document, as in Redis. No IO.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from beeq.protocol.events import decode_event

#: The reconciler's look may come a minute later.
_MAX_AGE_S = 120.0
_MAX_JOBS = 10_000
_MAX_BYTES = 32_000_000
#: The beginning of a message as bee-queue and beeq write it; another one is decoded as a whole.
_SUCCEEDED = re.compile(rb'\{"id":"([^"\\]*)","event":"succeeded"')
_USUAL = re.compile(rb'\{"id":"[^"\\]*","event":"')

#: Queue and job; when it was heard, and the message.
_Key = tuple[str, str]
_Heard = tuple[float, bytes]


class HeardResults:
    """The latest results, bounded in jobs, bytes and time: the oldest goes first.

    ``names`` has the queue of each channel.
    """

    def __init__(
        self, names: Mapping[str, str], *, max_jobs: int = _MAX_JOBS, max_bytes: int = _MAX_BYTES
    ) -> None:
        self._names = dict(names)
        self._max_jobs = max_jobs
        self._max_bytes = max_bytes
        self._heard: OrderedDict[_Key, _Heard] = OrderedDict()  # the oldest first
        self._bytes = 0

    def hear(self, channel: str, message: bytes, now_s: float) -> None:
        """Keep a message that says that a job has succeeded."""
        job_id = succeeded_id(message)
        if job_id is None or len(message) > self._max_bytes:
            return
        key = self._names[channel], job_id
        self._drop(key)
        self._heard[key] = now_s, message
        self._bytes += len(message)
        while len(self._heard) > self._max_jobs or self._bytes > self._max_bytes:
            self._drop(next(iter(self._heard)))

    def has(self, queue_name: str, job_id: str) -> bool:
        """Return whether the job's success was heard of."""
        return (queue_name, job_id) in self._heard

    def result_of(self, queue_name: str, job_id: str) -> Any:
        """Return the job's published result; None if its success was not heard of."""
        heard = self._heard.get((queue_name, job_id))
        event = None if heard is None else decode_event(heard[1])
        return None if event is None else event.value

    def forget(self, queue_name: str, job_id: str, *, before_s: float) -> None:
        """Forget a job's result heard before then: it belongs to another run, or has been written."""
        heard = self._heard.get((queue_name, job_id))
        if heard is not None and heard[0] < before_s:
            self._drop((queue_name, job_id))

    def forget_old(self, now_s: float) -> None:
        """Forget results that are too old to be needed."""
        while self._heard and next(iter(self._heard.values()))[0] < now_s - _MAX_AGE_S:
            self._drop(next(iter(self._heard)))

    def _drop(self, key: _Key) -> None:
        heard = self._heard.pop(key, None)
        if heard is not None:
            self._bytes -= len(heard[1])


def succeeded_id(message: bytes) -> str | None:
    """Return the id in a message that says that a job has succeeded; None of another message."""
    found = _SUCCEEDED.match(message)
    if found is not None:
        return found[1].decode(errors="replace")
    if _USUAL.match(message):
        return None  # another event
    event = decode_event(message)
    return event.job_id if event is not None and event.name == "succeeded" else None
