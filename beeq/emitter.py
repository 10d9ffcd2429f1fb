"""Listeners by event name: ``on``, ``once``, ``off``, ``emit``. Knows nothing of jobs or Redis."""

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

#: A listener; a coroutine function is run as a task by the emitter's owner.
Listener = Callable[..., Any]


class Emitter:
    """Calls listeners in the order in which they were added.

    A listener that raises does not stop the others: its error goes to ``on_error``. ``spawn`` runs what
    coroutine functions return.
    """

    __slots__ = ("_listeners", "_on_error", "_spawn")

    def __init__(
        self,
        *,
        spawn: Callable[[Coroutine[Any, Any, Any]], None],
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        self._listeners: dict[str, list[tuple[Listener, bool]]] = {}
        self._spawn = spawn
        self._on_error = on_error

    def on(self, event: str, fn: Listener, *, once: bool = False) -> None:
        """Call ``fn`` at every ``event``; with ``once``, at the next one only."""
        if not callable(fn):
            raise TypeError(f"a listener must be callable, not {type(fn).__name__}")
        self._listeners.setdefault(event, []).append((fn, once))

    def off(self, event: str, fn: Listener) -> None:
        """Stop calling ``fn``, if it is a listener."""
        self._replace(event, [entry for entry in self._listeners.get(event, ()) if entry[0] != fn])

    def has(self, event: str) -> bool:
        """Return whether the event has listeners."""
        return event in self._listeners

    def names(self) -> list[str]:
        """Return the events that have listeners."""
        return list(self._listeners)

    def emit(self, event: str, *args: Any) -> bool:
        """Call the listeners; return whether there were any."""
        entries = self._listeners.get(event)
        if not entries:
            return False
        for entry in list(entries):
            fn, once = entry
            if once:
                self._replace(event, [left for left in self._listeners.get(event, ()) if left is not entry])
            try:
                outcome = fn(*args)
                if inspect.isawaitable(outcome):
                    self._spawn(self._await(event, outcome))
            except Exception as error:  # noqa: BLE001 - a listener may raise anything
                self._on_error(event, error)
        return True

    def _replace(self, event: str, entries: list[tuple[Listener, bool]]) -> None:
        if entries:
            self._listeners[event] = entries
        else:
            self._listeners.pop(event, None)

    async def _await(self, event: str, outcome: Any) -> None:
        try:
            await outcome
        except Exception as error:  # noqa: BLE001 - a listener may raise anything
            self._on_error(event, error)
