"""What another thread's event loop may use of a client that a queue was given: values, and copies of them.

A connection is made of a class and of options: an address, credentials, TLS. Such values work in any loop.
Other things belong to the loop that used them first, or may, and fail elsewhere ("attached to a different
loop"):

* A pool with Sentinels asks these through clients that keep connections: it is made again from the Sentinels'
  addresses and options.
* A credential provider may ask over a client of its own: it is asked in its queue's loop.
* A third-party pool, connection class, callback or other object: that is unknown. Such a client
  stays in its queue's loop with all that is done with it.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import ssl
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from beeq.supervision.fence import fenced

logger = logging.getLogger("beeq")

#: Where the classes are whose ways are known: redis-py's, and those of its fork.
_KNOWN = tuple(
    f"{library}.{module}"
    for library in ("redis", "valkey")
    for module in ("asyncio.client", "asyncio.connection", "asyncio.sentinel", "credentials")
)
#: Options that every connection sets itself, or that connecting does not use.
_NOT_NEEDED = (
    "connection_pool",
    "event_dispatcher",
    "himport_registry",
    "maint_notifications_config",
    "maint_notifications_pool_handler",
    "oss_cluster_maint_notifications_handler",
    "retry",
    "retry_on_error",
)
_VALUES = (str, bytes, int, float, type(None), enum.Enum, PurePath, ssl.SSLContext)


class Bound(Exception):
    """A part belongs to its loop, or may; the text names it."""


@dataclass(frozen=True)
class Copy:
    """A pool that shares nothing with the one that it was made of, but providers of credentials.

    Attributes:
        pool: the settings that connections are made with.
        sentinel: the Sentinel client that the pool asks for the master, to be closed; None: there is none.
        asked_elsewhere: the provider that is asked in its own loop, as text; empty if there is none.
    """

    pool: Any
    sentinel: Any = None
    asked_elsewhere: str = ""


def copy_of(
    pool: Any, *, limit_s: float, sentinel_limit_s: float, owner: asyncio.AbstractEventLoop | None = None
) -> Copy:
    """Return a pool made of the other one's values.

    ``owner``: call credential providers in this loop, which runs in another thread than the copy's; None: in
    the running one. ``limit_s`` bounds each provider's time, ``sentinel_limit_s`` each Sentinel's.

    Raises:
        Bound: a part of the pool may belong to its loop.
    """
    if not _is_known(type(pool)):
        raise Bound(f"the pool {_name(type(pool))}")
    if not hasattr(pool, "sentinel_manager"):
        options, provider = _options(pool, owner, limit_s)
        return Copy(_new_pool(type(pool), pool, options), asked_elsewhere=provider)
    manager = pool.sentinel_manager
    if not _is_known(type(manager)):
        raise Bound(f"the Sentinel {_name(type(manager))}")
    options, provider = _options(pool, owner, limit_s)
    new_manager = type(manager)(
        [],
        min_other_sentinels=manager.min_other_sentinels,
        force_master_ip=getattr(manager, "_force_master_ip", None),
    )
    for client in manager.sentinels:
        if not _is_known(type(client)) or not _is_known(type(client.connection_pool)):
            raise Bound(f"the Sentinels' client {_name(type(client))}")
        of_sentinel, of_its_own = _options(client.connection_pool, owner, limit_s)
        for name in ("socket_timeout", "socket_connect_timeout"):  # the next Sentinel needs time, too
            given_s = of_sentinel.get(name)
            of_sentinel[name] = sentinel_limit_s if given_s is None else min(given_s, sentinel_limit_s)
        its_pool = _new_pool(type(client.connection_pool), client.connection_pool, of_sentinel)
        new_manager.sentinels.append(type(client).from_pool(its_pool))
        provider = provider or of_its_own
    new_pool = type(pool)(
        pool.service_name,
        new_manager,
        connection_class=_class_of(pool),
        is_master=pool.is_master,
        check_connection=pool.check_connection,
        **options,
    )
    return Copy(new_pool, new_manager, provider)


def _new_pool(kind: Any, pool: Any, options: dict[str, Any]) -> Any:
    return kind(connection_class=_class_of(pool), max_connections=pool.max_connections, **options)


def _class_of(pool: Any) -> Any:
    if not _is_known(pool.connection_class):
        raise Bound(f"the connection class {_name(pool.connection_class)}")
    return pool.connection_class


def _options(
    pool: Any, owner: asyncio.AbstractEventLoop | None, limit_s: float
) -> tuple[dict[str, Any], str]:
    """Return the pool's options for another loop, and the provider that is called in ``owner``."""
    options = {name: value for name, value in pool.connection_kwargs.items() if name not in _NOT_NEEDED}
    asked_elsewhere = ""
    for name, value in options.items():
        if name == "credential_provider" and value is not None:
            if owner is not None and not _is_known(type(value)):
                options[name] = _AskedElsewhere(value, owner, limit_s)
                asked_elsewhere = _name(type(value))
        elif not _is_value(value):
            raise Bound(f"the option {name}")
    return options, asked_elsewhere


def _is_known(kind: type[Any]) -> bool:
    return kind.__module__ in _KNOWN


def _is_value(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_value, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_is_value, value))
    if isinstance(value, type):  # of a parser, an encoder, an exception
        return value.__module__.startswith(("redis.", "valkey.", "builtins", "asyncio."))
    is_mark = type(value) is object  # a sentinel for a default
    return is_mark or isinstance(value, _VALUES) or type(value).__module__.startswith(("redis.", "valkey."))


def _name(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class _AskedElsewhere:
    """Asks a provider in the loop that it may belong to, from another thread's loop."""

    def __init__(self, provider: Any, owner: asyncio.AbstractEventLoop, limit_s: float) -> None:
        self._provider = provider
        self._owner = owner
        self._limit_s = limit_s

    async def get_credentials_async(self) -> Any:
        """Return what the provider returns, or raise what it raises; within a bound."""
        asking = fenced(self._ask, limit_s=self._limit_s)
        try:
            asked = asyncio.run_coroutine_threadsafe(asking, self._owner)
        except RuntimeError:
            asking.close()
            raise ConnectionError("the event loop of the credential provider is closed") from None
        return await asyncio.wrap_future(asked)

    async def _ask(self) -> Any:
        return await self._provider.get_credentials_async()


_said: weakref.WeakKeyDictionary[Any, set[str]] = weakref.WeakKeyDictionary()


def say_once(client: Any, text: str) -> None:
    """Log that something works differently with this client; once for each client."""
    try:
        said = _said.setdefault(client, set())
    except TypeError:  # a third-party one without weak references
        said = set()
    if text not in said:
        said.add(text)
        logger.warning("%s", text)
