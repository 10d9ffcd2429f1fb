"""The duties of one owner, and the watchdog, which restarts those that take no turn."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any

from beeq.errors import DutySilent
from beeq.supervision.duty import STEPS_PER_PATIENCE, Duty, DutyHealth
from beeq.supervision.supervised_task import SupervisedTask

#: How long a duty may be silent: a third of the stall interval, within these bounds.
_LEAST_PATIENCE_S = 0.3
_MOST_PATIENCE_S = 10.0
#: How long a cancelled loop may take to end; a task that ignores its cancellation must not stop the duties.
_LONGEST_END_S = 30.0


def patience_s_of(stall_interval_ms: int) -> float:
    """Return how long a duty of a queue may be silent: a hanging one is restarted within a stall interval."""
    return min(max(stall_interval_ms / 3000, _LEAST_PATIENCE_S), _MOST_PATIENCE_S)


class Duties:
    """The duties of one owner, and their watchdog, from the first ``add`` until ``close``.

    The watchdog is a chain of timers, not a task, so it cannot be cancelled. A blocked loop stops it;
    ``silent_ms``, which may be read in any thread, shows that.

    Args:
        on_error: called with what ended a duty, with DutyEnded or DutySilent.
        patience_s: how long a duty may be silent.
        is_redis_there: a silent duty may wait for Redis: it hangs only if this returns True.
    """

    def __init__(
        self,
        *,
        on_error: Callable[[BaseException], object],
        patience_s: float,
        is_redis_there: Callable[[], Awaitable[bool]],
    ) -> None:
        self.patience_s = patience_s
        self._tick_s = self.patience_s / STEPS_PER_PATIENCE
        self._on_error = on_error
        self._is_redis_there = is_redis_there
        self._tasks: list[SupervisedTask] = []
        self._silence: dict[Duty, tuple[int, float]] = {}  # → its steps, and its silence since, in s
        self._ticked_at_s = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self._asked_at_s = 0.0
        self._is_closed = False
        #: Called at each tick of the watchdog.
        self.checks: list[Callable[[], object]] = []

    # Duties.

    def start(
        self, name: str, run: Callable[[Duty], Coroutine[Any, Any, object]], **options: Any
    ) -> SupervisedTask:
        """Run a duty in the running loop; ``options`` are those of ``SupervisedTask``."""
        task = SupervisedTask(
            name,
            run,
            patience_s=self.patience_s,
            on_error=self._on_error,
            may_begin_again=self._may_begin_again,
            **options,
        )
        self._tasks.append(task)
        self.add(task.duty)
        task.start()
        return task

    def add(self, duty: Duty) -> None:
        """Watch a duty, too, from the running loop."""
        self._silence[duty] = duty.steps, 0.0
        if self._timer is None and not self._is_closed:
            self._ticked_at_s = time.monotonic()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._tick_s, self._tick, context=Context())  # not a caller's

    def remove(self, duty: Duty) -> None:
        """Forget a duty."""
        self._silence.pop(duty, None)

    async def stop(self, task: SupervisedTask, *, timeout_s: float = 1.0) -> None:
        """End a duty that ``start`` has returned, wait at most ``timeout_s``, and forget it."""
        await task.stop(timeout_s)
        self.remove(task.duty)
        if task in self._tasks:
            self._tasks.remove(task)

    def health(self) -> tuple[DutyHealth, ...]:
        """Return the state of each duty, in the order in which they began; may be called in any thread."""
        return tuple(duty.health() for duty in list(self._silence))

    @property
    def are_cancelled(self) -> bool:
        """Whether all tasks here were cancelled from outside, as ``asyncio.run`` does with every task."""
        is_any = any(task.is_cancelled for task in self._tasks)
        return is_any and not any(task.is_let_be for task in self._tasks)

    def _may_begin_again(self, cancelled_at_s: float) -> bool:
        """Return whether the loop goes on: an ending loop first waits for all cancelled tasks."""
        if not self.are_cancelled or time.monotonic() - cancelled_at_s > _LONGEST_END_S:
            return True
        return not any(task.cancelling() for task in asyncio.all_tasks())

    @property
    def silent_ms(self) -> int:
        """How long ago the watchdog last looked: more than ``patience_s`` means that the loop is blocked."""
        is_watching = self._timer is not None
        return round((time.monotonic() - self._ticked_at_s) * 1000) if is_watching else 0

    async def close(self, *, timeout_s: float = 1.0) -> None:
        """End all duties, and the watchdog; wait at most ``timeout_s`` for each."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._tasks:
            task.cancel()
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking], timeout=1)
        for task in list(self._tasks):
            await self.stop(task, timeout_s=timeout_s)

    # The watchdog.

    def _tick(self) -> None:
        """Look at each duty. While the loop was blocked or the machine slept, none counts as silent."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._tick_s, self._tick)
        now_s = time.monotonic()
        step_s = min(now_s - self._ticked_at_s, 2 * self._tick_s)
        self._ticked_at_s = now_s
        for duty, (steps, silent_s) in list(self._silence.items()):
            is_silent = duty.steps == steps and duty.state == "running"
            self._silence[duty] = duty.steps, silent_s + step_s if is_silent else 0.0
        for check in self.checks:
            try:
                check()
            except Exception as error:  # noqa: BLE001 - the watchdog outlives its checks
                self._on_error(error)
        if self._silent():
            self._ask(loop)

    def _silent(self) -> list[tuple[Duty, float]]:
        return [
            (duty, silent_s)
            for duty, (steps, silent_s) in list(self._silence.items())
            if silent_s > duty.allowed_s and duty.steps == steps
        ]

    def _ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ask whether Redis answers, and then restart the silent duties."""
        if self._asking is not None and not self._asking.done():
            if self._ticked_at_s - self._asked_at_s < _MOST_PATIENCE_S:
                return
            self._asking.cancel()  # the question itself hangs
        self._asked_at_s = self._ticked_at_s
        self._asking = loop.create_task(self._judge(), name="beeq watchdog")

    async def _judge(self) -> None:
        try:
            if not await self._is_redis_there():
                return
            for duty, silent_s in self._silent():
                self._silence[duty] = duty.steps, 0.0
                duty.on_silent(DutySilent(duty.name, round(silent_s * 1000)))
        except Exception as error:  # noqa: BLE001 - the watchdog outlives what it finds
            self._on_error(error)
