"""The messages between a worker and its child processes, and the errors in them.

Pure: bytes in, values out. A message is a small head (a JSON object whose ``kind`` names it) and a
body that may be large. Everything in it is JSON, except for the body of ``load``:

* worker to child: ``load`` (where the handler is), ``job`` (the record as it was claimed), ``answer`` (what a
  command returned or raised);
* child to worker: ``ready``, ``broken`` (the handler could not be loaded), ``begin`` (the handler is called
  now), ``call`` (a command of the job), ``end`` (what the handler returned or raised).

The handler is the user's code, in the process that has the descriptor. It may fork, and the fork may write:

* Each message of a child says which process sent it, and each about a job to which attempt it belongs
  (``job`` gives that a number); calls are numbered upwards. The worker drops what belongs to no live call.
* Each message begins with the connection's token, which the worker makes. If two processes wrote at once, or
one wrote a part, the token is missing at the beginning of a message, or there is one inside: so a broken
stream is recognised as soon as the next message comes. (By lengths alone, half a message would swallow the
next one, and both sides would wait for ever.)
"""

import builtins
import struct
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from beeq import errors
from beeq.errors import kind_of
from beeq.protocol.codec import dumps, loads
from beeq.protocol.outcome import message_of, trace_of

#: Its own bytes appear in a message by chance once in 2¹²⁸.
TOKEN_BYTES = 16
#: Lengths of head and body; they follow the token.
_LENGTHS = struct.Struct("!IQ")
_PREFIX_BYTES = TOKEN_BYTES + _LENGTHS.size
#: A longer message is not beeq's: the handler's own code wrote to the descriptor.
_MAX_HEAD_BYTES = 10_000_000
_MAX_BODY_BYTES = 2**32
#: What beeq's own errors carry besides their message.
_FACTS = ("job_id", "timeout_ms", "deliveries", "status", "code", "reason", "after")
#: The classes in which an error may be raised again. Left out: those with a meaning inside a coroutine, and
#: groups, which cannot be made without their exceptions.
_KNOWN: dict[str, type[Exception]] = {
    name: kind
    for module in (builtins, errors)
    for name, kind in vars(module).items()
    if isinstance(kind, type)
    and issubclass(kind, Exception)
    and not issubclass(kind, StopIteration | StopAsyncIteration | BaseExceptionGroup)
}


class Message(NamedTuple):
    """One message."""

    head: dict[str, Any]
    body: bytes = b""


def encode(token: bytes, kind: str, body: bytes = b"", **facts: Any) -> bytes:
    """Return a message's bytes; the token is the connection's.

    Raises:
        TypeError: a fact cannot be written as JSON.
    """
    head = dumps({"kind": kind, **facts})
    return b"".join((token, _LENGTHS.pack(len(head), len(body)), head, body))


class Decoder:
    """Turns the bytes of a stream, in chunks of any size, into messages.

    Each begins with ``token``; None: it is taken from the first one.
    """

    def __init__(self, token: bytes | None = None) -> None:
        self.token = token
        self._buffer = bytearray()
        self._searched_to = TOKEN_BYTES  # no further token begins before

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """Yield the messages that ``chunk`` completes.

        Raises:
            ValueError: the bytes are not a message.
        """
        self._buffer += chunk
        while self._buffer:
            self._check_token()
            if len(self._buffer) < _PREFIX_BYTES:
                return
            head_bytes, body_bytes = _LENGTHS.unpack_from(self._buffer, TOKEN_BYTES)
            if head_bytes > _MAX_HEAD_BYTES or body_bytes > _MAX_BODY_BYTES:
                raise ValueError("not a message")
            body_at = _PREFIX_BYTES + head_bytes
            end = body_at + body_bytes
            self._refuse_token_before(min(end, len(self._buffer)))
            if len(self._buffer) < end:
                return
            view = memoryview(self._buffer)
            raw_head, body = bytes(view[_PREFIX_BYTES:body_at]), bytes(view[body_at:end])
            view.release()
            del self._buffer[:end]
            self._searched_to = TOKEN_BYTES
            head = loads(raw_head)
            if not isinstance(head, dict) or "kind" not in head:
                raise ValueError("not a message")
            yield Message(head, body)

    def _check_token(self) -> None:
        """Let the buffer begin with the token, or the part of it that has come."""
        start = bytes(self._buffer[:TOKEN_BYTES])
        if self.token is None and len(start) == TOKEN_BYTES:
            self.token = start
        if self.token is not None and not self.token.startswith(start):
            raise ValueError("not a message")

    def _refuse_token_before(self, end: int) -> None:
        """Refuse a message that begins before this one has ended."""
        if self._buffer.find(self.token or b"", self._searched_to, end) >= 0:
            raise ValueError("a message inside another one")
        self._searched_to = max(TOKEN_BYTES, end - TOKEN_BYTES + 1)


class ChildTraceback(Exception):
    """Where an error was raised in a child process; the cause of the error in the worker."""

    def __str__(self) -> str:
        return f"in the child process\n{self.args[0]}"


#: Reads a class's own name: a metaclass may override it.
_MODULE = type.__dict__["__module__"]


def error_to_json(error: BaseException, *, base: type[Exception] | None = None) -> dict[str, Any]:
    """Return the facts by which another process can raise the error again, as JSON values.

    No pickle: the worker may not be able to import the handler's class, or to construct it from its args.

    Args:
        error: any exception, however odd.
        base: the class to raise it as, under its own name; None: the nearest one in ``_KNOWN``.
    """
    own = type(error)
    attributes = _attributes_of(error)
    base = base or next(
        (kind for kind in own.__mro__ if any(kind is known for known in _KNOWN.values())), Exception
    )
    return {
        "name": kind_of(error),
        "module": str(_MODULE.__get__(own)),
        "base": base.__name__,
        "message": message_of(error),
        "trace": trace_of(error),
        "facts": {name: _plain(attributes[name]) for name in _FACTS if name in attributes},
    }


def _attributes_of(error: BaseException) -> dict[str, Any]:
    try:
        return dict(vars(error))
    except BaseException:  # noqa: BLE001 - the user's own class may raise anything
        return {}


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds() * 1000
    return value if value is None or isinstance(value, str | int | float) else str(type(value))


def error_from_json(error: dict[str, Any], *, with_trace: bool) -> Exception:
    """Return an exception with the name, base class, message and facts that ``error_to_json`` wrote.

    Args:
        error: what ``error_to_json`` returned.
        with_trace: make its traceback the cause, so that it is shown and recorded.
    """
    name, module, message = str(error["name"]), str(error["module"]), str(error["message"])
    base = _KNOWN.get(str(error["base"]), Exception)
    kind = base
    if (name, module) != (base.__name__, base.__module__):
        kind = type(name, (base,), {"__module__": module})
    raised = _without_constructor(kind, message, error["facts"])
    if message_of(raised) != message:  # a KeyError, say, shows the repr of its argument
        kind = type(name, (base,), {"__module__": module, "__str__": lambda _self: message})
        raised = _without_constructor(kind, message, error["facts"])
    if with_trace:
        trace = str(error["trace"]).removeprefix(f"{name}: {message}\n")
        raised.__cause__ = ChildTraceback(trace.rstrip())
    return raised


def _without_constructor(kind: type[Exception], message: str, facts: dict[str, Any]) -> Exception:
    """Return an exception whose constructor was not called: it may want arguments that were not sent."""
    raised = kind.__new__(kind)
    raised.args = (message,)
    raised.__dict__.update(facts)
    return raised
