"""A duty that is a coroutine: its task is restarted whenever it has ended, or hangs."""

import asyncio
import contextlib
import functools
import math
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from beeq.errors import DutyEnded, DutySilent
from beeq.supervision.duty import Duty, DutyState, contained

#: The delay before a cancelled task is restarted.
_CANCELLED_S = 0.05


class SupervisedTask:
    """A duty that is a coroutine: runs as a task, restarted when it has ended or hangs, until ``stop``.

    Args:
        duty: its state.
        run: called with the duty at each start; it reports the turns.
        patience_s: how long it may be silent.
        on_error: called with what ended it, each time.
        may_end: whether it may end without an error.
        gives_up_after: after so many ends in a row, with no turn in between, it is given up.
        on_given_up: called with the last of these.
        on_over: called once it has ended for good.
        may_begin_again: called after a cancellation from outside, with its monotonic time, until it
            returns True: the loop goes on.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[Duty], Coroutine[Any, Any, object]],
        *,
        patience_s: float,
        on_error: Callable[[BaseException], object],
        may_end: Callable[[], bool] = lambda: False,
        gives_up_after: float = math.inf,
        on_given_up: Callable[[BaseException], object] = lambda _error: None,
        on_over: Callable[[], object] = lambda: None,
        may_begin_again: Callable[[float], bool] = lambda _cancelled_at_s: True,
    ) -> None:
        self.duty = Duty(name, patience_s=patience_s, on_error=on_error, on_silent=self._fell_silent)
        self._run = run
        self._may_end = may_end
        self._gives_up_after = gives_up_after
        self._on_given_up = on_given_up
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[BaseException | None] | None = None
        self._left: set[asyncio.Task[Any]] = set()  # cancelled because they hung, and not ended yet
        self._again: asyncio.TimerHandle | None = None
        self._is_stopping = False
        self._was_cancelled = False
        self._on_over = on_over
        self._may_begin_again = may_begin_again

    @property
    def is_cancelled(self) -> bool:
        """Whether its task was cancelled from outside, as ``asyncio.run`` does with all at its end."""
        is_being = self._task is not None and self._task.cancelling() > 0
        return not self._is_stopping and (is_being or self._was_cancelled)

    @property
    def is_let_be(self) -> bool:
        """Whether its task runs, and was not cancelled."""
        return self._task is not None and not self._task.cancelling()

    def start(self) -> None:
        """Begin, in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._begin()

    def _begin(self) -> None:
        assert self._loop is not None  # noqa: S101 - ``start`` was called
        self._again = None
        self._was_cancelled = False
        self.duty.begins()
        run = functools.partial(self._run, self.duty)
        # In an empty context: it outlives its starter and the values of its context variables.
        self._task = self._loop.create_task(contained(run), name=f"beeq {self.duty.name}", context=Context())
        self._task.add_done_callback(self._ended, context=Context())

    def _ended(self, task: asyncio.Task[BaseException | None]) -> None:
        self._left.discard(task)
        if task is not self._task:
            return  # another task has replaced it
        self._task = None
        error = None if task.cancelled() else task.result()
        if self._is_stopping or (error is None and not task.cancelled() and self._may_end()):
            self._end("stopped")
        elif task.cancelled():
            # Not at once: ``asyncio.run`` cancels all tasks at its end, and nothing may restart in its loop.
            self.duty.state = "restarting"
            self._was_cancelled = True
            self._again = task.get_loop().call_later(_CANCELLED_S, self._outlived, time.monotonic())
        elif error is not None:
            with contextlib.suppress(Exception):  # an exception may override ``add_note``
                error.add_note(f"This ended the {self.duty.name}.")
            self._begin_again(error)
        else:
            self._begin_again(DutyEnded(self.duty.name, "returned"))

    def _fell_silent(self, error: DutySilent) -> None:
        """Cancel a task that hangs, and restart without waiting for its end."""
        if self._loop is not None and self._task is not None:
            self._loop.call_soon_threadsafe(self._replace, self._task, error)

    def _replace(self, task: asyncio.Task[BaseException | None], error: DutySilent) -> None:
        if task is not self._task or self._is_stopping:
            return
        self._task = None
        self._left.add(task)
        task.cancel()
        self._begin_again(error)

    def _outlived(self, cancelled_at_s: float, went_on: bool = False) -> None:
        """Restart after a cancellation, if the loop goes on at two checks in a row.

        Between the end of the last cancelled task and that of ``asyncio.run`` the loop runs a few more
        iterations, and looks as if it went on.
        """
        assert self._loop is not None  # noqa: S101 - ``start`` was called
        goes_on = self._may_begin_again(cancelled_at_s)
        if goes_on and went_on:
            self._begin_again(DutyEnded(self.duty.name, "was cancelled"))
        else:
            self._again = self._loop.call_later(_CANCELLED_S, self._outlived, cancelled_at_s, goes_on)

    def _begin_again(self, error: BaseException) -> None:
        assert self._loop is not None  # noqa: S101 - ``start`` was called
        self._again = None
        self.duty.broke(error)
        if self._is_stopping:  # a listener has closed the queue
            self._end("stopped")
        elif self.duty.breaks >= self._gives_up_after:
            self._end("failed")
            self._on_given_up(error)
        else:
            self._again = self._loop.call_later(self.duty.again_s(), self._begin)

    def _end(self, state: DutyState) -> None:
        if self.duty.state in ("stopped", "failed"):
            return
        self.duty.state = state
        self._on_over()

    async def stop(self, timeout_s: float) -> None:
        """End for good; wait at most ``timeout_s`` for the task's end. Stopping again is fine."""
        self.cancel()
        if tasks := [task for task in (self._task, *self._left) if task is not None]:
            await asyncio.wait(tasks, timeout=timeout_s)

    def cancel(self) -> None:
        """End for good, without waiting for it."""
        self._is_stopping = True
        if self._again is not None:
            self._again.cancel()
        if self._task is None:
            self._end("stopped")
        for task in (self._task, *self._left):
            if task is not None:
                task.cancel()
