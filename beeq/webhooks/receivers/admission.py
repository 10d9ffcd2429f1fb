"""Decides whether a receiver is called now, or its job waits: circuits and places of one worker process.

A URL has two circuits. That of its origin (scheme, host, port) opens when connections fail, that of its
endpoint when the answer was 5xx or 429, or none came in time: then the other endpoints of a host go on, and a
URL that makes a server hang blocks only itself. Places are counted by host, and given by endpoint. The state
is kept in this process only.
"""

import hashlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self

from beeq.errors import BeeqError
from beeq.webhooks.receivers.breaker import Breaker
from beeq.webhooks.receivers.line import Seeker
from beeq.webhooks.receivers.places import Places
from beeq.webhooks.urls import Target, endpoint_of, origin_of

logger = logging.getLogger(__name__)

FAILURES_SETTING = "BEEQ_WEBHOOK_BREAKER_FAILURES"
SLOW_PLACES_SETTING = "BEEQ_WEBHOOK_SLOW_PLACES"
#: The first job to ask gets the one attempt that a circuit grants. A job that was put off for longer than
#: this in all is attempted anyway, so that others do not overtake it until it fails after a day.
OVERDUE_S = 60 * 60.0
_MAX_DIGITS = 6


@dataclass(frozen=True, slots=True)
class ReceiverLimits:
    """The limits of failing and slow receivers.

    Attributes:
        max_failures: so many failures in a row open a circuit; 0: none opens.
        first_pause_s: how long it stays open first; each further time twice as long …
        longest_pause_s: … and no longer than this.
        slow_s: an attempt that has no answer by then is a slow one.
        slow_memory_s: so long after its latest slow attempt a host counts as slow.
        slow_places: how many places the slow attempts of one host may hold; None: half of the worker's.
    """

    max_failures: int = 10
    first_pause_s: float = 5.0
    longest_pause_s: float = 300.0
    slow_s: float = 5.0
    slow_memory_s: float = 300.0
    slow_places: int | None = None

    @classmethod
    def parse(cls, failures: str | None, slow_places: str | None) -> Self:
        """Read both settings; None means the default.

        Raises ValueError if one is not a whole number, or the places are 0; the message names the setting.
        """
        usual = cls()
        return cls(
            max_failures=usual.max_failures if failures is None else _number(FAILURES_SETTING, failures, 0),
            slow_places=None if slow_places is None else _number(SLOW_PLACES_SETTING, slow_places, 1),
        )


class ReceiverBusy(BeeqError):
    """The receiver is not called now. The message holds its host and port at most.

    Attributes:
        wait_s: how long to wait before the next try.
    """

    def __init__(self, message: str, wait_s: float) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Receivers:
    """Admits attempts, and learns from how they end. ``clock`` and ``spread``: see ``Breaker``."""

    def __init__(
        self,
        limits: ReceiverLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self.limits = limits
        self.breaker = Breaker(
            limits.max_failures, limits.first_pause_s, limits.longest_pause_s, clock=clock, spread=spread
        )
        self.places = Places(limits.slow_s, limits.slow_memory_s, limits.slow_places, clock=clock)

    def admit(self, target: Target, count: int | None, *, job_id: str = "", waited_s: float = 0.0) -> "Visit":
        """Return the attempt that may begin at a webhook's URL; raises ReceiverBusy if none may.

        ``count`` is how many jobs the worker runs at once; None: unknown, and places are not limited.
        ``waited_s`` is how long the job was put off so far: after an hour no circuit holds it up.
        """
        visit = Visit(self, target, count, job_id, waited_s)
        visit.check()
        return visit


class Visit:
    """One attempt: its place, and its result for the circuits. Enter it to begin, leave it at the end."""

    def __init__(
        self, receivers: Receivers, target: Target, count: int | None, job_id: str, waited_s: float
    ) -> None:
        self._breaker, self._places, self._count = receivers.breaker, receivers.places, count
        self._where = target.netloc.decode("ascii")
        self._endpoint, self._origin = _digest(endpoint_of(target)), _digest(origin_of(target))
        self._seeker = Seeker(target.raw_host.decode("ascii"), self._endpoint, job_id, waited_s)
        self._trials: set[str] = set()
        self._is_told = False

    def check(self) -> None:
        """Raise ReceiverBusy if the attempt must not begin now."""
        wait_s = max(map(self._breaker.wait_s, (self._origin, self._endpoint)))
        if wait_s > 0 and self._seeker.waited_s <= OVERDUE_S:
            raise ReceiverBusy(
                f"webhook at {self._where} failed too often, and is left alone for now", wait_s
            )
        if self._count is not None and (wait_s := self._places.wait_s(self._seeker, self._count)) > 0:
            raise self._slow(wait_s)

    def __enter__(self) -> Self:
        self._trials = {name for name in (self._origin, self._endpoint) if self._breaker.begin(name)}
        self._place = self._places.take(self._seeker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._places.leave(self._place, is_over=self._is_told)
        if not self._is_told:
            self._left(self._origin)
            self._left(self._endpoint)

    def is_too_slow(self) -> bool:
        """Note that there is no answer after ``slow_s``; return whether to give the attempt up."""
        if self._count is None:
            return False
        if not self._places.is_slow(self._seeker.host):
            logger.info(
                "webhooks to %s are slow, and hold no more than their share of the places", self._where
            )
        return self._places.is_too_slow(self._place, self._count)

    def given_up(self) -> ReceiverBusy:
        """Return the reason and the delay for a job whose attempt was given up."""
        assert self._count is not None  # noqa: S101 - else it is not given up
        return self._slow(self._places.put_off_s(self._seeker, self._count))

    def answered(self, status: int) -> None:
        """Note that the receiver answered: a failure of its endpoint if it cannot take messages now."""
        self._is_told = True
        self._succeeded(self._origin)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            self._failed(self._endpoint)
        else:
            self._succeeded(self._endpoint)

    def failed(self, *, is_connected: bool) -> None:
        """Note that no answer came."""
        self._is_told = True
        if is_connected:
            self._succeeded(self._origin)
            self._failed(self._endpoint)
        else:
            self._failed(self._origin)
            self._left(self._endpoint)

    # The log names host and port only: a path may hold a secret.

    def _succeeded(self, name: str) -> None:
        if self._breaker.succeeded(name):
            logger.info("webhooks to %s go on", self._where)

    def _failed(self, name: str) -> None:
        if self._breaker.failed(name, is_trial=name in self._trials):
            what = "it cannot be connected to" if name == self._origin else "an endpoint gives no good answer"
            logger.warning("webhooks to %s wait: %s, several times in a row", self._where, what)

    def _left(self, name: str) -> None:
        self._breaker.left(name, is_trial=name in self._trials)

    def _slow(self, wait_s: float) -> ReceiverBusy:
        return ReceiverBusy(f"webhook at {self._where} is slow, and holds its share of the places", wait_s)


def _digest(name: str) -> str:
    """Return a short key for a circuit's name, to save memory: a URL's path may have 64 KB."""
    return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


def _number(name: str, text: str, least: int) -> int:
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > _MAX_DIGITS or int(digits) < least:
        raise ValueError(f"{name} must be a whole number from {least} to {10**_MAX_DIGITS - 1}")
    return int(digits)
