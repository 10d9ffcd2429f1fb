"""The state of one duty: whether it runs, when it last took a turn, what ended it."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from beeq.errors import DutySilent, kind_and_text_of

T = TypeVar("T")

logger = logging.getLogger("beeq")

#: The delay before a duty restarts after its end; doubles, and a turn resets it.
_FIRST_AGAIN_S = 0.05
_LONGEST_AGAIN_S = 5.0
#: How many signs of life a sleeping duty gives in the time that it may be silent.
STEPS_PER_PATIENCE = 4

#: ``restarting``: it has ended or hung, and restarts shortly; ``failed``: it was given up.
DutyState = Literal["running", "restarting", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class DutyHealth:
    """The state of one duty of a queue, or of the mirror.

    Attributes:
        name: ``pump``, ``blocking fetch``, ``heartbeat``, ``stall check``, ``repeated stall check``,
            ``pause watch``, ``overdue watch``, ``retention``, ``delayed activator``, ``subscriber``;
            ``mirror writer``, ``mirror reconciler``, ``mirror subscription``.
        state: ``running``, ``restarting``, ``stopped`` or ``failed``.
        last_turn_ms: when it last took a turn, in ms since the epoch.
        silent_ms: how long ago that was.
        restarts: how often it was restarted after it had ended or hung.
        error: what ended it last, as text; "" if nothing ever did.
    """

    name: str
    state: DutyState
    last_turn_ms: int
    silent_ms: int
    restarts: int
    error: str


async def contained(function: Callable[[], Awaitable[object]]) -> BaseException | None:
    """Return what the function raises, or None: some exceptions, raised by a task, would end the loop."""
    try:
        await function()
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - a duty may end by anything
        return error
    return None


class Duty:
    """The state of one duty. The duty calls ``turn``, its owner ``broke``; the watchdog judges its silence.

    The watchdog calls ``on_silent`` in its loop: cancel what hangs, and restart.
    """

    def __init__(
        self,
        name: str,
        *,
        patience_s: float,
        on_error: Callable[[BaseException], object],
        on_silent: Callable[[DutySilent], object],
    ) -> None:
        self.name = name
        self.patience_s = patience_s
        self.on_silent = on_silent
        self.state: DutyState = "running"
        self.restarts = 0
        #: How often it broke since its last turn.
        self.breaks = 0
        #: When the last turn was taken, by the monotonic clock.
        self.turned_at_s = time.monotonic()
        #: Counts signs of life.
        self.steps = 0
        self._on_error = on_error
        self._quiet_s = 0.0
        self._error = ""

    @property
    def allowed_s(self) -> float:
        """How long it may be silent from its last step on."""
        return self.patience_s + self._quiet_s

    def turn(self, quiet_s: float = 0.0) -> None:
        """Note a turn; the next may come ``quiet_s`` later than usual."""
        self.progressed()
        self.rests(quiet_s)

    def progressed(self) -> None:
        """Note a turn that does not show whether the duty's own coroutine hangs."""
        self.turned_at_s = time.monotonic()
        self.breaks = 0

    def rests(self, quiet_s: float) -> None:
        """Note a sign of life without a turn; the next may come ``quiet_s`` later than usual."""
        self.steps += 1
        self._quiet_s = quiet_s

    async def rest(self, rest_s: float) -> None:
        """Sleep ``rest_s``, with signs of life."""
        step_s = self.patience_s / STEPS_PER_PATIENCE
        self.turn()
        while rest_s > 0:
            await asyncio.sleep(min(rest_s, step_s))
            rest_s -= step_s
            self.turn()

    async def in_turn(self, call: Coroutine[Any, Any, T], *, sent: Callable[[], int], bound_s: float) -> T:
        """Await a call that shares a pipeline with others: while these are sent, it waits, and does not hang.

        ``sent`` counts the pipeline's batches; ``bound_s`` is how long one of them may take.
        """
        waiting = asyncio.get_running_loop().create_task(call)
        seen = sent()
        self.rests(bound_s)
        try:
            while not (await asyncio.wait([waiting], timeout=self.patience_s / STEPS_PER_PATIENCE))[0]:
                if sent() != seen:
                    seen = sent()
                    self.rests(bound_s)
            return waiting.result()
        finally:
            waiting.cancel()
            self.rests(0)

    def broke(self, error: BaseException) -> None:
        """Count and report that it has ended, or hung, and restarts."""
        self.restarts += 1
        self.breaks += 1
        self.state = "restarting"
        self._error = kind_and_text_of(error)
        try:
            self._on_error(error)
        except Exception:
            logger.exception("that the %s ended could not be reported", self.name)

    def again_s(self) -> float:
        """Return how long to wait before it restarts."""
        longest_s = min(self.patience_s / 2, _LONGEST_AGAIN_S)
        return min(_FIRST_AGAIN_S * 2.0 ** min(self.breaks - 1, 20), longest_s) * random.uniform(0.75, 1)

    def begins(self) -> None:
        """Note that it begins, for the first time or again."""
        self.state = "running"
        self.steps += 1
        self._quiet_s = 0.0

    def health(self) -> DutyHealth:
        """Return its state."""
        silent_ms = round((time.monotonic() - self.turned_at_s) * 1000)
        now_ms = time.time_ns() // 1_000_000
        return DutyHealth(self.name, self.state, now_ms - silent_ms, silent_ms, self.restarts, self._error)
