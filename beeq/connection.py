"""The border to Redis: the one place that makes connections and turns their errors into beeq's.

It uses redis-py's own connection objects, which bring TLS, AUTH, Unix sockets and Sentinel, without
the client above them (``line.py`` says why). Knows nothing of queues or jobs. No message that leaves
here holds a password.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry as ConnectionRetry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from beeq.errors import RedisRefused, RedisUnavailable

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.connection import AbstractConnection

    from beeq.embedded import EmbeddedServer

DEFAULT_URL = "redis://127.0.0.1:6379"
_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "embedded")
_ANY_HOST = "localhost"
_USERINFO = re.compile(r"(?<=//)[^/@\s]*@")


def redact(text: str) -> str:
    """Return ``text`` with the user and password of any URL in it removed."""
    return _USERINFO.sub("***@", text)


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turn redis-py's errors, and the operating system's, into beeq's."""
    try:
        yield
    except (exceptions.RedisError, OSError, asyncio.IncompleteReadError) as error:
        raise mapped(error) from None


def mapped(error: BaseException) -> RedisUnavailable | RedisRefused:
    """Return beeq's error for redis-py's, or the operating system's."""
    text = redact(str(error)) or type(error).__name__
    if isinstance(error, exceptions.ResponseError) and not isinstance(error, exceptions.AuthenticationError):
        return RedisRefused(_with_code(error, text))
    if isinstance(error, TimeoutError) and not isinstance(error, exceptions.RedisError):
        return RedisUnavailable("Redis did not answer in time")
    return RedisUnavailable(text)


def _with_code(error: exceptions.ResponseError, text: str) -> str:
    """Put back the first word of Redis's reply, which redis-py's parser cuts off."""
    codes = {
        exceptions.OutOfMemoryError: "OOM",
        exceptions.NoPermissionError: "NOPERM",
        exceptions.ReadOnlyError: "READONLY",
    }
    code = codes.get(type(error))
    return f"{code} {text}" if code and not text.startswith(code) else text


def check_url(url: str) -> str:
    """Return ``url`` if it is one that beeq understands.

    Raises:
        ValueError: it is empty or malformed. The message does not repeat it: it may hold a password.
    """
    if not isinstance(url, str) or not url.strip():
        raise ValueError("the Redis URL is empty")
    scheme = url.split(":", 1)[0].lower() if ":" in url else ""
    if scheme not in _SCHEMES:
        raise ValueError(f"the Redis URL must begin with one of {', '.join(_SCHEMES)}")
    if scheme == "embedded":
        return url
    try:
        parts = urlsplit(url)
        if scheme == "unix":
            valid = bool(parts.path)
        elif scheme == "redis+sentinel":
            valid = bool(_sentinels(parts.netloc)) and len(parts.path.strip("/")) > 0
        else:
            valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
            valid = valid and re.fullmatch(r"/?\d*", parts.path) is not None
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("the Redis URL is malformed")
    return url


def _sentinels(netloc: str) -> list[tuple[str, int]]:
    hosts = []
    for address in netloc.rpartition("@")[2].split(","):
        host, _, port = address.rpartition(":")
        if not host:
            host, port = port, "26379"
        if not port.isdecimal() or not host:
            raise ValueError("a Sentinel address is malformed")
        hosts.append((host.strip("[]"), int(port)))
    return hosts


class Dialer:
    """Makes connections to one Redis, given by URL, by a ``redis.asyncio`` client, or not at all.

    ``embedded:`` starts or joins the folder's own server at the first ``dial``; ``close`` leaves it.
    """

    def __init__(self, target: str | Redis | None, *, timeout_ms: int) -> None:
        self._target = target
        self._timeout_s = timeout_ms / 1000
        self.client: Redis | None = None
        self._pool: ConnectionPool | None = None
        self._url: str | None = None
        self._server: EmbeddedServer | None = None
        self._sentinel: Sentinel | None = None
        if target is None or isinstance(target, str):
            self._url = check_url(DEFAULT_URL if target is None else target)
        elif hasattr(target, "connection_pool"):
            self.client = target
            self._pool = target.connection_pool
        else:
            raise TypeError(
                "redis must be a URL or a redis.asyncio client, "
                f"not {type(target).__module__}.{type(target).__name__}"
            )

    def __repr__(self) -> str:
        return f"Dialer({redact(self._url) if self._url else self.client!r})"

    def twin(self) -> Dialer:
        """Return a dialer of the same Redis for another thread's loop."""
        return Dialer(self._target, timeout_ms=round(self._timeout_s * 1000))

    async def dial(self) -> AbstractConnection:
        """Return a new connection, connected within the timeout.

        Raises:
            RedisUnavailable: nobody there, wrong password, or no answer in time.
        """
        pool = await self._get_pool()
        # Our own bounds: every wait for Redis is limited where it is awaited, and tries are counted
        # by whoever calls. redis-py's defaults (5 s a read, 3 hidden tries) would break blocking
        # moves and multiply the waits. RESP2: pub/sub messages then arrive as plain replies.
        options = {
            **pool.connection_kwargs,
            "socket_timeout": None,
            "socket_connect_timeout": self._timeout_s,
            "retry": ConnectionRetry(NoBackoff(), 0),
            "retry_on_error": [],
            "health_check_interval": 0,
            "protocol": 2,
            "decode_responses": False,
        }
        options.pop("retry_on_timeout", None)
        connection: AbstractConnection = pool.connection_class(**options)
        try:
            with mapped_errors():
                async with asyncio.timeout(self._timeout_s):
                    await connection.connect()  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _get_pool(self) -> ConnectionPool:
        if self._pool is None:
            assert self._url is not None  # noqa: S101 - a target is a client or a URL
            if self._url.startswith("embedded:"):
                await self._join_embedded(self._url)
            elif self._url.startswith("redis+sentinel:"):
                self._pool = self._sentinel_pool(self._url)
            else:
                self._pool = ConnectionPool.from_url(self._url)
        return self._pool  # type: ignore[return-value]  # each branch has set it

    async def _join_embedded(self, url: str) -> None:
        from beeq import embedded  # noqa: PLC0415 - only this URL needs a server of its own

        folder: Path = embedded.folder_of(url)
        server = self._server = await asyncio.to_thread(embedded.join, folder)
        self._pool = ConnectionPool.from_url(server.url)

    def _sentinel_pool(self, url: str) -> ConnectionPool:
        parts = urlsplit(url)
        name, _, db = parts.path.strip("/").partition("/")
        # The host list is no URL authority redis-py could parse; the options after it are.
        user, password = parts.username or "", parts.password or ""
        parsed = parse_url(f"redis://{user}:{password}@{_ANY_HOST}/{db or 0}")
        options: dict[str, Any] = {
            key: value for key, value in parsed.items() if key != "host" and value != ""
        }
        self._sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            _sentinels(parts.netloc),
            sentinel_kwargs={
                "socket_timeout": self._timeout_s,
                "socket_connect_timeout": self._timeout_s,
            },
        )
        pool: ConnectionPool = self._sentinel.master_for(name, **options).connection_pool
        return pool

    async def close(self, *, close_client: bool = False) -> None:
        """Leave the embedded server, and close the client that was passed in if asked to."""
        if close_client and self.client is not None:
            await self.client.aclose()
        if self._sentinel is not None:
            for sentinel in self._sentinel.sentinels:
                await sentinel.aclose()
            self._sentinel = None
        server, self._server = self._server, None
        if server is not None:
            self._pool = None
            await asyncio.to_thread(server.close)
