"""Handlers' code at its oddest: exceptions, results and awaitables, by name. Child processes import it, too."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

#: What is not an Exception, or means something else inside a coroutine.
KINDS: tuple[type[BaseException], ...] = (
    ValueError,
    MemoryError,
    StopIteration,
    StopAsyncIteration,
    asyncio.CancelledError,
    GeneratorExit,
    KeyboardInterrupt,
    SystemExit,
)


def _raiser(kind: type[BaseException]) -> Callable[..., Any]:
    def raise_it(*_: Any, **__: Any) -> Any:
        raise kind("from inside")

    return raise_it


def _with_method(name: str, kind: type[BaseException]) -> BaseException:
    return type("Odd", (Exception,), {name: _raiser(kind)})("odd")  # type: ignore[no-any-return]


def _with_property(name: str, kind: type[BaseException]) -> BaseException:
    return type("Odd", (Exception,), {name: property(_raiser(kind))})("odd")  # type: ignore[no-any-return]


def _nameless() -> BaseException:
    meta = type("Meta", (type,), {"__name__": property(_raiser(asyncio.CancelledError))})
    return meta("Nameless", (Exception,), {})("odd")  # type: ignore[no-any-return]


def _own_cause() -> BaseException:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def _long_chain() -> BaseException:
    error = ValueError("0")
    for n in range(3000):
        error, error.__cause__ = ValueError(str(n)), error
    return error


class OddText(str):
    """A text whose methods raise."""

    __slots__ = ()
    __len__ = encode = __bool__ = _raiser(asyncio.CancelledError)  # type: ignore[assignment]


def _odd_text() -> BaseException:
    return type("Odd", (Exception,), {"__str__": lambda _self: OddText("odd")})("odd")  # type: ignore[no-any-return]


ERRORS: dict[str, Callable[[], BaseException]] = {
    **{kind.__name__: functools.partial(kind, "odd") for kind in KINDS},
    **{
        f"{method} raises {kind.__name__}": functools.partial(_with_method, method, kind)
        for method in ("__str__", "__repr__", "__reduce__", "with_traceback", "add_note")
        for kind in (ValueError, asyncio.CancelledError, KeyboardInterrupt)
    },
    **{
        f"{name} raises {kind.__name__}": functools.partial(_with_property, name, kind)
        for name in ("__class__", "__notes__", "__dict__")
        for kind in (ValueError, asyncio.CancelledError, KeyboardInterrupt)
    },
    "its class has no name": _nameless,
    "its text is no text": lambda: type("Odd", (Exception,), {"__str__": lambda _self: 5})("odd"),
    "its text is an odd one": _odd_text,
    "its text is huge": lambda: ValueError("x" * 5_000_000),
    "its text is half a character": lambda: ValueError("\ud83d"),
    "it has no text": ValueError,
    "it is its own cause": _own_cause,
    "it has many causes": _long_chain,
    "it is a group": lambda: BaseExceptionGroup("odd", [KeyboardInterrupt(), ValueError("odd")]),
}


class OddDict(dict[Any, Any]):
    """A dict that cannot be read; the key is one that needs the exact way."""

    def __init__(self, kind: type[BaseException]) -> None:
        super().__init__({1: 2})
        self.kind = kind

    def items(self) -> Any:
        raise self.kind("from inside")


class OddList(list[Any]):
    """A list that cannot be read."""

    def __init__(self, kind: type[BaseException]) -> None:
        super().__init__([{1: 2}])
        self.kind = kind

    def __iter__(self) -> Any:
        raise self.kind("from inside")


class ChangingDict(dict[Any, Any]):
    """A dict that changes while it is read, as one does that another thread writes."""

    def items(self) -> Any:
        for item in super().items():
            self[len(self) + 1] = "one more"
            yield item


def _circle() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def _deep() -> list[Any]:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


#: Results that cannot be written.
RESULTS: dict[str, Callable[[], Any]] = {
    **{
        f"{odd.__name__} raises {kind.__name__}": functools.partial(odd, kind)
        for odd in (OddDict, OddList)
        for kind in KINDS
    },
    **{
        f"__class__ raises {kind.__name__}": functools.partial(
            lambda kind: type("Odd", (), {"__class__": property(_raiser(kind))})(), kind
        )
        for kind in KINDS
    },
    "a dict that changes": lambda: ChangingDict({1: 1}),
    "an object": object,
    "a circle": _circle,
    "a deep list": _deep,
    "an integer too long": lambda: 10**5000,
    "an exception": lambda: ValueError("odd"),
    "a generator": lambda: (n for n in range(3)),
}


class Awaited:
    """An awaitable that misbehaves."""

    def __init__(self, how: str) -> None:
        self.how = how

    def __await__(self) -> Any:
        match self.how:
            case "yields what is no future":
                yield 5
            case kind:
                raise {each.__name__: each for each in KINDS}[kind]("odd")
        return None


class NotAwaited(Awaited):
    """An awaitable whose ``__await__`` returns no iterator."""

    def __await__(self) -> Any:
        return 5


class UncancellableFuture(asyncio.Future[None]):
    """A future whose ``cancel`` raises."""

    def cancel(self, msg: Any = None) -> bool:  # noqa: ARG002 - asyncio's own
        raise KeyboardInterrupt("from inside")


AWAITABLES = ("yields what is no future", "is no iterator", *(kind.__name__ for kind in KINDS))


def raise_error(name: str) -> None:
    """Raise it."""
    error = ERRORS[name]()
    raise error


def handle(job: Any) -> Any:
    """Do what the job's data names: a kind of behaviour and a name."""
    kind, name = job.data
    match kind:
        case "error":
            raise_error(name)
        case "result":
            return RESULTS[name]()
        case "awaitable":
            return NotAwaited(name) if name == "is no iterator" else Awaited(name)
    return "well"


async def handle_in_loop(job: Any) -> Any:
    """Do the same in the loop."""
    result = handle(job)
    return await result if isinstance(result, Awaited) else result
