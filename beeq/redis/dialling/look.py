"""Finds out what answers at an address when a connection failed for no clear reason.

A server at its client limit says so and hangs up, but the client loses that message if it writes too late; a
TLS port resets a plain connection; a plain port waits for the rest of a command, while the client waits for
its TLS handshake. A look has a connection of its own: it reads first, and then sends a plain PING. It costs
nothing while connections can be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Coroutine
from typing import Any

from beeq.errors import RedisUnavailable
from beeq.redis.urls import address_text

#: How long to read first: a server that refuses a client says so at once.
_HEAR_S = 0.2
#: The longest look.
_LOOK_S = 1.0
#: If a TLS handshake takes longer than this part of a connection's time, a look is made while it goes on. One
#: peer of several has a third of the time.
_SLOW_HANDSHAKE = 0.2
#: Messages of redis-py and the system when the other side hung up, or spoke another protocol.
_UNCLEAR = re.compile(
    r"UNKNOWN while writing|Error while reading|Connection closed|Connection lost|Connection reset"
    r"|Broken pipe|\ASSL|\[SSL|\AError connecting to [^ ]*\.\Z|Protocol error|Invalid Response"
    r"|as reply type byte",
    re.IGNORECASE,
)


async def connect(connection: Any, connecting: Coroutine[Any, Any, Any], *, timeout_s: float) -> None:
    """Await ``connecting``, which connects redis-py's connection; that may take ``timeout_s``.

    Raises what it raises; RedisUnavailable with the reason, where a look found it.
    """
    if not _speaks_tls(connection):
        try:
            await connecting
        except Exception as error:
            await _raise_what_is_there(connection, error)
            raise
        return
    handshake = asyncio.ensure_future(connecting)
    try:
        await asyncio.wait([handshake], timeout=timeout_s * _SLOW_HANDSHAKE)
        if not handshake.done():
            await _raise_what_is_there(connection, None)
        await handshake
    except RedisUnavailable:
        raise
    except Exception as error:
        await _raise_what_is_there(connection, error)
        raise
    finally:
        if not handshake.done():
            handshake.cancel()
            await asyncio.wait([handshake])


def is_for_tls(kind: type[Any]) -> bool:
    """Return whether a connection class of redis-py's or valkey-py's speaks TLS."""
    return any(each.__name__ == "SSLConnection" for each in kind.__mro__)


def _speaks_tls(connection: Any) -> bool:
    return is_for_tls(type(connection))


async def _raise_what_is_there(connection: Any, error: Exception | None) -> None:
    """Look, unless the error is clear by itself; raise what that finds, or return if it finds nothing."""
    if error is not None and not _UNCLEAR.search(str(error)):
        return
    is_tls = _speaks_tls(connection)
    heard = await _heard(connection)
    if not heard and not is_tls and await _shakes_hands(connection):
        heard = _ALERT
    where = getattr(connection, "path", "") or address_text(connection.host, connection.port)
    said = _meaning_of(heard, where, is_tls=is_tls)
    if said:
        raise RedisUnavailable(said) from None


async def _shakes_hands(connection: Any) -> bool:
    """Return whether the server speaks TLS: a handshake succeeds, or is refused in TLS's own words."""
    if getattr(connection, "path", ""):
        return False
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # no secret is sent to this server
    try:
        async with asyncio.timeout(_LOOK_S):
            _, writer = await asyncio.open_connection(connection.host, connection.port, ssl=context)
    except ssl.SSLError as error:
        return "ALERT" in str(error)
    except OSError:
        return False
    writer.transport.abort()
    return True


async def _heard(connection: Any) -> bytes:
    """Return the first bytes that the server sends; none if it cannot be reached, or is silent."""
    heard = b""
    writer: asyncio.StreamWriter | None = None
    try:
        with contextlib.suppress(OSError):  # TimeoutError is one
            async with asyncio.timeout(_LOOK_S):
                path = getattr(connection, "path", "")
                opening = (
                    asyncio.open_unix_connection(path)
                    if path
                    else asyncio.open_connection(connection.host, connection.port)
                )
                reader, writer = await opening
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_HEAR_S):
                        heard = await reader.read(100)
                if not heard and not reader.at_eof():
                    writer.write(b"PING\r\n")
                    heard = await reader.read(100)
    finally:  # also when this is cancelled
        if writer is not None:
            writer.transport.abort()
    return heard


_ALERT = b"\x15\x03"
_TLS = (_ALERT, b"\x16\x03")
_REDIS = (b"+PONG", b"-NOAUTH", b"-LOADING", b"-MASTERDOWN", b"-BUSY")


def _meaning_of(heard: bytes, where: str, *, is_tls: bool) -> str:
    """Return a sentence on a server that sent this to a plain client, or ``""``."""
    if heard.startswith(b"-ERR max number of clients"):
        return f"{where} has its max number of clients: close some, or raise its maxclients"
    if heard.startswith(b"-DENIED"):
        return f"{where} is in protected mode: without a password it answers its own host only"
    if heard.startswith(_TLS):
        return "" if is_tls else f"{where} speaks TLS: write rediss:// in the URL, or ssl=True"
    if heard.startswith(_REDIS):
        return f"{where} does not speak TLS: write redis:// in the URL, or no ssl=True" if is_tls else ""
    if heard and not heard.startswith((b"+", b"-")):
        words = heard.decode("ascii", "replace").split("\r", 1)[0][:30]
        return f"{where} is not a Redis server: it says {words!r}"
    return ""
