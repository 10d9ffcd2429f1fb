"""Has replicas confirm what a batch has written, before its callers are told: the setting ``wait_replicas``.

Two commands go behind the calls of a batch, over the same connection: a small write and WAIT.

* The small write: WAIT waits for the last write of its own connection (Valkey; Redis 7.0: for all that was
  written before the last command). Who saves again under the id of a job that was not confirmed writes
  nothing, for the job is there, and would be told at once that replicas have it. With a write in between WAIT
  waits for all that this server has done until then.
* WAIT takes half of ``redis_timeout`` at most: its reply must come before the connection counts as silent.
* A failover may come in between. Then the connection ends, or WAIT is refused; it was done, but maybe nowhere
  that lasts. All of these are ``NotReplicated``.
"""

from typing import Any

from beeq.errors import NotReplicated
from beeq.redis.resp import pack

#: How long the key of the small write is kept: nobody reads it.
_KEPT_MS = 60_000


class ReplicaWait:
    """What one queue asks of its replicas.

    Args:
        wanted: how many have to confirm.
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
        """Return what is to be told instead of "done"; None if enough replicas have confirmed.

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
