"""Recognises a plain URL, or a plain client, that leads to a cluster node or to a Sentinel.

Both accept a client, and answer PING; a refused command reveals them. From then on a new connection sends
HELLO first, and connecting fails with one sentence while the server is of that kind, so that retry delays
grow.
"""

from __future__ import annotations

import re
from typing import Any

from redis import exceptions

from beeq.errors import RedisError, RedisRefused, RedisUnavailable
from beeq.redis.error_codes import MISDIRECTED, NOT_HERE, coded
from beeq.redis.urls import address_text

_BY_A_CLUSTER = ("MOVED ", "ASK ", "CROSSSLOT ", "CLUSTERDOWN ")
#: A Sentinel has no scripts and no keys.
_BY_A_SENTINEL = re.compile(r"\AERR unknown command ['`](?:EVALSHA|SCRIPT|SELECT)\b", re.IGNORECASE)
#: A server's mode in the reply to HELLO, and how its URL begins.
_CLUSTER, _SENTINEL = "cluster", "sentinel"


class Misdirection:
    """One connector's state.

    Args:
        options: of its connections; host and port are shown.
        is_tls: whether they speak TLS.
    """

    def __init__(self, options: dict[str, Any], *, is_tls: bool) -> None:
        address = address_text(options.get("host", "localhost"), options.get("port", 6379))
        self._where = options.get("path") or address
        self._scheme = "rediss" if is_tls else "redis"
        #: What the server was taken for.
        self._mode = ""

    def meaning_of(self, text: str) -> str:
        """Return an error reply with its code first: ``MISDIRECTED``, where Redis has none for that."""
        if text.startswith(_BY_A_CLUSTER):
            self._mode = _CLUSTER
        elif _BY_A_SENTINEL.match(text):
            self._mode = _SENTINEL
        else:
            return coded(text)
        code = text.split(" ", 1)[0]
        return f"{code if code in NOT_HERE else MISDIRECTED} {self._sentence()}"

    def of_a_dial(self, error: RedisError) -> RedisError:
        """Return the error of a failed connection: a Sentinel refuses a database number."""
        if isinstance(error, RedisRefused) and _BY_A_SENTINEL.match(str(error)):
            self._mode = _SENTINEL
            return RedisUnavailable(self._sentence())
        return error

    def _sentence(self) -> str:
        if self._mode == _CLUSTER:
            return (
                f"{self._where} is a node of a cluster: write {self._scheme}+cluster://{self._where}, and a "
                "hash tag in the prefix or the queue's name, such as {bq}"
            )
        return (
            f"{self._where} is a Sentinel: write {self._scheme}+sentinel://{self._where}/name-of-the-master"
        )

    async def check(self, connection: Any) -> None:
        """Raise RedisUnavailable if a new connection leads to such a server again."""
        if not self._mode:
            return
        try:
            await connection.send_command("HELLO")
            reply = await connection.read_response()
        except exceptions.ResponseError:
            reply = []  # the user may not send HELLO
        facts = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=False))
        mode = facts.get(b"mode", b"").decode()
        if mode == self._mode:
            raise RedisUnavailable(self._sentence())
        self._mode = ""
