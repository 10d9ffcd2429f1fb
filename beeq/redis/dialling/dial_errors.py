"""Why a connection could not be made: one sentence, without a password."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from typing import Any

from redis import exceptions
from redis.asyncio.sentinel import MasterNotFoundError

from beeq.errors import RedisRefused, RedisUnavailable, kind_of, text_of
from beeq.redis.error_codes import coded
from beeq.redis.rights import advice_on
from beeq.redis.urls import address_text, redact

#: What redis-py raises, and the operating system through it.
_FAILURES = (exceptions.RedisError, OSError, asyncio.IncompleteReadError)
#: The first word of a reply, which redis-py's parser cuts off.
_CODES = {
    exceptions.OutOfMemoryError: "OOM",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.NoScriptError: "NOSCRIPT",
    exceptions.ClusterDownError: "CLUSTERDOWN",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.TryAgainError: "TRYAGAIN",
    exceptions.MovedError: "MOVED",
    exceptions.AskError: "ASK",
}
#: The longest text of a third-party error.
_LONGEST_TEXT = 500
#: Secrets in such a text, by their names.
_NAMED_SECRET = re.compile(
    r"\b((?:password|passwd|pwd|secret|token|api_?key)['\"]?\s*[=:]\s*)(?:'[^']*'|\"[^\"]*\"|[^\s,;&]+)",
    re.IGNORECASE,
)
#: redis-py's words for "it hung up".
_HUNG_UP = re.compile(
    r"UNKNOWN while writing|Error while reading|Connection closed by server|\AError connecting to [^ ]*\.\Z"
)
_MAX_CLIENTS = "max number of clients"
#: A Redis server's reply to a Sentinel's command.
_NO_SENTINEL = re.compile(r"unknown command.*sentinel", re.IGNORECASE)


def mapped(
    error: Exception, *, secrets: Iterable[str] = (), sentinels: Sequence[str] = ()
) -> RedisUnavailable | RedisRefused:
    """Return beeq's error for what dialling raised: redis-py, the system, or code of the client's owner.

    A credential provider, a connection class or another library's client raise errors of their own: they
    count as Redis being away, and are tried again like any failure of Redis.

    Args:
        error: what was raised.
        secrets: passwords that a third-party error may repeat.
        sentinels: the addresses of the Sentinels that were asked for the master, if there are any.
    """
    if isinstance(error, RedisUnavailable | RedisRefused):
        return error
    text = redact(text_of(error), *secrets)
    is_sentence = text.startswith("DENIED ") or (sentinels and _NO_SENTINEL.search(text))
    if isinstance(error, exceptions.ResponseError) and not is_sentence:
        code = _CODES.get(type(error))
        refusal = coded(f"{code} {text}" if code and not text.startswith(code) else text)
        return RedisRefused(refusal + advice_on(text))
    return RedisUnavailable(_sentence(error, text, sentinels))


def _sentence(error: Exception, text: str, sentinels: Sequence[str]) -> str:
    said = text
    if sentinels and _NO_SENTINEL.search(text):
        which = "one of " * (len(sentinels) > 1) + _listed(sentinels)
        said = f"{which} is a Redis server, not a Sentinel: write redis://host:port"
    elif text.startswith("Authentication required"):
        said = coded("NOAUTH Authentication required")
    elif text.startswith("DENIED "):
        said = "Redis is in protected mode: without a password it answers its own host only"
    elif _MAX_CLIENTS in text:
        said = f"Redis has its {_MAX_CLIENTS}: close some, or raise its maxclients"
    elif isinstance(error, TimeoutError) and not isinstance(error, exceptions.RedisError) and not error.args:
        said = "Redis did not answer in time"
    elif not isinstance(error, _FAILURES):
        shown = _NAMED_SECRET.sub(r"\1***", text[:_LONGEST_TEXT])
        said = f"no connection to Redis can be made: {kind_of(error)}: {shown}"
    elif _HUNG_UP.search(text):
        said = "Redis closed the connection at once"
    return said


def no_master(name: str, sentinels: Sequence[str], reason: str) -> RedisUnavailable:
    """Return the error for Sentinels that name no master; ``reason`` is an error of theirs, or ""."""
    if reason:
        return RedisUnavailable(f"no Sentinel of {_listed(sentinels)} names the master {name!r}: {reason}")
    return RedisUnavailable(f"no Sentinel of {_listed(sentinels)} knows a master {name!r} that is up")


def is_no_master(error: Exception) -> bool:
    """Return whether no Sentinel named a master; redis-py's own message lists each at length."""
    return kind_of(error) == MasterNotFoundError.__name__


def _listed(addresses: Sequence[str]) -> str:
    return ", ".join(addresses[:3]) + (", …" if len(addresses) > 3 else "")  # noqa: PLR2004 - enough to know them by


def sentinels_of(pool: Any) -> list[str]:
    """Return the addresses of a pool's Sentinels."""
    manager = getattr(pool, "sentinel_manager", None)
    options = [client.connection_pool.connection_kwargs for client in getattr(manager, "sentinels", [])]
    return [address_text(each.get("host", "localhost"), each.get("port", 26379)) for each in options]
