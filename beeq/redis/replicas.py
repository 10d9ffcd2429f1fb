"""Has replicas confirm a batch's writes before its callers get their replies: the setting ``wait_replicas``.

Two commands go behind the calls of a batch, over the same connection: a small write and WAIT.

* The small write: WAIT waits for the last write of its own connection (Valkey; Redis 7.0: for all that was
  written before the last command). A repeated save of an unconfirmed job writes nothing, because the job is
  there, so WAIT alone would return at once. After another write WAIT waits for all that this server has done
  until then.
* WAIT takes half of ``redis_timeout`` at most: its reply must come before the connection counts as silent.
* A failover may come in between. Then the connection ends, or WAIT is refused; the write may be lost. All of
these are ``NotReplicated``.
"""

from typing import Any

from beeq.errors import NotReplicated
from beeq.redis.resp import pack

#: How long the key of the small write is kept; it is never read.
_KEPT_MS = 60_000


class ReplicaWait:
    """The WAIT of one queue.

    Args:
        wanted: how many replicas must confirm.
        key: a key of the queue, for the small write.
        timeout_ms: the longest wait for one reply of Redis.
    """

    def __init__(self, wanted: int, *, key: str, timeout_ms: int) -> None:
        self._wanted = wanted
        self._limit_ms = max(1, timeout_ms // 2)  # 0 would mean for ever
        #: Packed commands, to be sent behind the calls in this order.
        self.write = pack("SET", key, "", "PX", _KEPT_MS)
        self.wait = pack("WAIT", wanted, self._limit_ms)

    def shortfall(self, written: Any, confirmed: Any) -> NotReplicated | None:
        """Return the error for the callers; None if enough replicas have confirmed.

        Args:
            written: the reply to ``write``.
            confirmed: the reply to ``wait``, or what ended the connection before it came.
        """
        for error in (written, confirmed):
            if isinstance(error, Exception):
                return NotReplicated(f"no replica confirmed it ({error})")
        if confirmed >= self._wanted:
            return None
        return NotReplicated(f"{confirmed} of {self._wanted} replicas confirmed it in {self._limit_ms} ms")
