"""The messages between a worker and its child processes, and the errors in them.

Pure: bytes in, values out. A message is a small head (a JSON object whose ``kind`` names it) and a
body that may be large. Everything in it is JSON, except for the body of ``load``:

* worker to child: ``load`` (where the handler is), ``job`` (the record as it was claimed), ``answer`` (what a
  command returned or raised);
* child to worker: ``ready``, ``broken`` (the handler could not be loaded), ``begin`` (the handler is called
  now), ``call`` (a command of the job), ``end`` (what the handler returned or raised).
"""

import builtins
import struct
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from beeq import errors
from beeq.protocol.codec import dumps, loads
from beeq.protocol.outcome import message_of, trace_of

#: Lengths of head and body.
_PREFIX = struct.Struct("!IQ")
#: A longer message is not beeq's: the handler's own code wrote to the descriptor.
_MAX_HEAD_BYTES = 10_000_000
_MAX_BODY_BYTES = 2**32
#: What beeq's own errors carry besides their message.
_FACTS = ("job_id", "timeout_ms", "deliveries", "status", "code", "reason", "after")
#: As what an error may be raised again. Left out: what means something else inside a coroutine, and groups,
#: which cannot be made without their exceptions.
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


def encode(kind: str, body: bytes = b"", **facts: Any) -> bytes:
    """Return a message's bytes.

    Raises:
        TypeError: a fact cannot be written as JSON.
    """
    head = dumps({"kind": kind, **facts})
    return b"".join((_PREFIX.pack(len(head), len(body)), head, body))


class Decoder:
    """Turns the bytes of a stream, in chunks of any size, into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """Yield the messages that ``chunk`` completes.

        Raises:
            ValueError: the bytes are not a message.
        """
        self._buffer += chunk
        while len(self._buffer) >= _PREFIX.size:
            head_bytes, body_bytes = _PREFIX.unpack_from(self._buffer)
            if head_bytes > _MAX_HEAD_BYTES or body_bytes > _MAX_BODY_BYTES:
                raise ValueError("not a message")
            body_at = _PREFIX.size + head_bytes
            end = body_at + body_bytes
            if len(self._buffer) < end:
                return
            view = memoryview(self._buffer)
            raw_head, body = bytes(view[_PREFIX.size : body_at]), bytes(view[body_at:end])
            view.release()
            del self._buffer[:end]
            head = loads(raw_head)
            if not isinstance(head, dict) or "kind" not in head:
                raise ValueError("not a message")
            yield Message(head, body)


class ChildTraceback(Exception):
    """Where an error was raised in a child process; the cause of the error in the worker."""

    def __str__(self) -> str:
        return f"in the child process\n{self.args[0]}"


def error_to_json(error: BaseException, *, base: type[Exception] | None = None) -> dict[str, Any]:
    """Return what another process needs to raise the error again, as JSON values.

    No pickle: the worker may not be able to import the handler's class, or to construct it from its args.

    Args:
        error: any exception, however odd.
        base: the class to raise it as, under its own name; None: the nearest one in ``_KNOWN``.
    """
    own = type(error)
    attributes = getattr(error, "__dict__", {})
    base = base or next((kind for kind in own.__mro__ if _KNOWN.get(kind.__name__) is kind), Exception)
    return {
        "name": own.__name__,
        "module": str(own.__module__),
        "base": base.__name__,
        "message": message_of(error),
        "trace": trace_of(error),
        "facts": {name: _plain(attributes[name]) for name in _FACTS if name in attributes},
    }


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
