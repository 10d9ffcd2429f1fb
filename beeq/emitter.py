"""Listeners by event name: ``on``, ``once``, ``off``, ``emit``. Knows nothing of jobs or Redis.

Whatever a listener raises, ``CancelledError`` and ``KeyboardInterrupt`` included, goes to ``on_error`` only.
A listener is called in a copy of the context in which it was added: it sees the context variables of the
code that called ``on``, not of the code that opened the queue, or works there.
"""

import inspect
from collections.abc import Awaitable, Callable, Container
from contextvars import copy_context
from typing import Any

#: A listener; what a coroutine function returns is awaited by the emitter's owner.
Listener = Callable[..., Any]


class Subscription:
    """One listener of one event."""

    __slots__ = ("event", "fn", "is_once", "line", "variables")

    def __init__(self, event: str, fn: Listener, *, is_once: bool) -> None:
        self.event = event
        self.fn = fn
        self.is_once = is_once
        #: The context in which the listener was added.
        self.variables = copy_context()
        #: For the emitter's owner: awaitables that the listener has returned, and that were not awaited yet.
        self.line: Any = None


class Emitter:
    """Calls listeners in the order in which they were added.

    A listener that raises does not stop the others: its error goes to ``on_error``. ``on_awaitable`` gets
    what coroutine functions return, and has it awaited.
    """

    __slots__ = ("_on_awaitable", "_on_error", "_subscriptions")

    def __init__(
        self,
        *,
        on_awaitable: Callable[[Subscription, Awaitable[Any]], None],
        on_error: Callable[[str, BaseException], None],
    ) -> None:
        self._subscriptions: dict[str, list[Subscription]] = {}
        self._on_awaitable = on_awaitable
        self._on_error = on_error

    def on(self, event: str, fn: Listener, *, once: bool = False) -> None:
        """Call ``fn`` at every ``event``; with ``once``, at the next one only."""
        if not callable(fn):
            raise TypeError(f"a listener must be callable, not {type(fn).__name__}")
        self._subscriptions.setdefault(event, []).append(Subscription(event, fn, is_once=once))

    def hand_over(self) -> dict[str, list[Subscription]]:
        """Return the listeners by event, for ``take_over`` of another emitter, and call them no more."""
        handed, self._subscriptions = self._subscriptions, {}
        return handed

    def take_over(self, handed: dict[str, list[Subscription]]) -> None:
        """Call the listeners that an emitter, whose owner is closed, has handed over."""
        for event, subscriptions in handed.items():
            for subscription in subscriptions:
                subscription.line = None  # what awaited it has ended with the owner
            self._subscriptions.setdefault(event, []).extend(subscriptions)

    def off(self, event: str, fn: Listener) -> None:
        """Stop calling ``fn``, if it is a listener."""
        self._replace(event, [each for each in self._subscriptions.get(event, ()) if each.fn != fn])

    def has(self, event: str) -> bool:
        """Return whether the event has listeners."""
        return event in self._subscriptions

    def heard(self) -> Container[str]:
        """Return the events that have listeners, as they are whenever it is asked."""
        return self._subscriptions.keys()

    def names(self) -> list[str]:
        """Return the events that have listeners."""
        return list(self._subscriptions)

    def emit(self, event: str, *args: Any) -> bool:
        """Call the listeners; return whether there were any. Raises nothing."""
        subscriptions = self._subscriptions.get(event)
        if not subscriptions:
            return False
        for subscription in list(subscriptions):
            if subscription.is_once:
                left = [each for each in self._subscriptions.get(event, ()) if each is not subscription]
                self._replace(event, left)
            try:
                outcome = subscription.variables.copy().run(subscription.fn, *args)
                if outcome is not None and inspect.isawaitable(outcome):
                    self._on_awaitable(subscription, outcome)
            except BaseException as error:  # noqa: BLE001 - a listener may raise anything
                self._on_error(event, error)
        return True

    def _replace(self, event: str, subscriptions: list[Subscription]) -> None:
        if subscriptions:
            self._subscriptions[event] = subscriptions
        else:
            self._subscriptions.pop(event, None)
