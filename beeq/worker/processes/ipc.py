"""What a worker and its child processes say to each other: messages over a stream, and errors in them.

Pure: bytes in, values out. A message is a small head (a JSON object whose ``kind`` names it) and a
body that may be large. Everything in it is JSON, except for the body of ``load``:

* worker to child: ``load`` (where the handler is), ``job`` (the record as it was claimed), ``answer``;
* child to worker: ``ready``, ``begin`` (the handler is called now), ``call`` (a move of the job), ``end``.
"""

from __future__ import annotations

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
#: What claims to be longer is not ours: someone else wrote to our descriptor.
_MAX_HEAD_BYTES = 10_000_000
_MAX_BODY_BYTES = 2**32
#: What beeq's own errors carry besides their message.
_FACTS = ("job_id", "timeout_ms", "deliveries", "status", "code", "reason", "after")
#: Raised inside a coroutine these would mean something else.
_NEVER_RAISED = (StopIteration, StopAsyncIteration)


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
    """Turns the bytes of a stream into messages, however they were cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[Message]:
        """Yield the messages that ``chunk`` completes.

        Raises:
            ValueError: these are no messages.
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


def tell(error: BaseException, *, base: type[Exception] | None = None) -> dict[str, Any]:
    """Return what another process needs to raise the error again, as JSON values.

    Args:
        error: any exception, however odd.
        base: what to raise it as, under its own name; its nearest kind that everyone knows if None.
    """
    own = type(error)
    attributes = getattr(error, "__dict__", {})
    facts = {name: _plain(attributes[name]) for name in _FACTS if name in attributes}
    return {
        "name": own.__name__,
        "module": str(own.__module__),
        "base": _known_base(own).__name__ if base is None else base.__name__,
        "message": message_of(error),
        "trace": trace_of(error),
        "facts": facts,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds() * 1000
    return value if value is None or isinstance(value, str | int | float) else str(type(value))


def _known_base(own: type[BaseException]) -> type[Exception]:
    """Return the nearest base that is beeq's or Python's own, and that may be raised anywhere."""
    for kind in own.__mro__:
        known = _known(kind.__name__)
        if known is kind and not issubclass(known, _NEVER_RAISED):
            return known
    return Exception


def _known(name: str) -> type[Exception] | None:
    """Return the ``Exception`` of that name that is beeq's own, else Python's; None if there is none."""
    for module in (errors, builtins):
        found = getattr(module, name, None)
        if isinstance(found, type) and issubclass(found, Exception):
            return found
    return None


def told(error: dict[str, Any], *, with_trace: bool) -> Exception:
    """Return the exception that ``tell`` was told of: its name, kind, message, and beeq's facts of it.

    Args:
        error: what ``tell`` returned.
        with_trace: make its traceback the cause, so that it is shown and recorded.
    """
    name, module, message = str(error["name"]), str(error["module"]), str(error["message"])
    base = _known(str(error["base"])) or Exception
    try:
        base.__new__(base)
    except TypeError:
        base = Exception  # an exception group cannot be without exceptions
    is_itself = name == base.__name__ and module == base.__module__
    kind = base if is_itself else type(name, (base,), {"__module__": module})
    raised = _made(kind, message, error["facts"])
    if message_of(raised) != message:
        # A KeyError, say, shows its argument otherwise.
        kind = type(name, (base,), {"__module__": module, "__str__": lambda _self: message})
        raised = _made(kind, message, error["facts"])
    if with_trace:
        trace = str(error["trace"]).removeprefix(f"{name}: {message}\n")
        raised.__cause__ = ChildTraceback(trace.rstrip())
    return raised


def _made(kind: type[Exception], message: str, facts: dict[str, Any]) -> Exception:
    """Return an exception whose constructor was not called: it may want what we do not have."""
    raised = kind.__new__(kind)
    raised.args = (message,)
    raised.__dict__.update(facts)
    return raised
