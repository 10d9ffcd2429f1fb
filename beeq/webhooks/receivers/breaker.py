"""Circuits: after some failures in a row a receiver is not called for a while, then one attempt tries it.

The caller chooses the circuits' names. No IO; the clock is given.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

#: Circuits that are remembered: so many that opened, and as many that only failed so far. Invalid names are
#: easily made up, but displace open circuits only if each of them fails that often itself.
MAX_CIRCUITS = 10_000


@dataclass(slots=True)
class _Circuit:
    failures: int = 0  # in a row
    pause_s: float = 0.0  # the latest; 0: it was not opened
    open_until_s: float = 0.0
    is_tried: bool = False  # the attempt that will close it, or open it again, is under way


class Breaker:
    """The circuits that failed last, and the open ones that were used last; all others are closed.

    Args:
        max_failures: so many in a row open a circuit; 0: none ever opens.
        first_s: how long it stays open then; each further time twice as long.
        longest_s: the longest pause.
        clock: returns seconds, which never go back.
        spread: returns a random number from 0 to 1, so that waiting jobs do not all come back at once.
    """

    def __init__(
        self,
        max_failures: int,
        first_s: float,
        longest_s: float,
        *,
        clock: Callable[[], float],
        spread: Callable[[], float],
    ) -> None:
        self._max_failures = max_failures
        self._first_s = first_s
        self._longest_s = longest_s
        self._clock = clock
        self._spread = spread
        self._failing: OrderedDict[str, _Circuit] = OrderedDict()  # never opened; the latest failure last
        self._opened: OrderedDict[str, _Circuit] = OrderedDict()  # the latest asked about last

    def wait_s(self, name: str) -> float:
        """Return how long to wait before a call; 0: the circuit is closed, or is to be tried."""
        circuit = self._opened.get(name)
        if circuit is None:
            return 0.0
        self._opened.move_to_end(name)
        rest_s = circuit.open_until_s - self._clock()
        if rest_s <= 0 and not circuit.is_tried:
            return 0.0
        # A job that comes during the trial waits a pause: the attempt may take that long.
        base_s = circuit.pause_s if circuit.is_tried else rest_s
        return base_s + self._spread() * circuit.pause_s / 4

    def begin(self, name: str) -> bool:
        """Note that a call begins; return whether it is the one that tries the circuit."""
        circuit = self._opened.get(name)
        if circuit is None:
            return False
        circuit.is_tried = True
        return True

    def succeeded(self, name: str) -> bool:
        """Close the circuit; return whether it was open."""
        self._failing.pop(name, None)
        return self._opened.pop(name, None) is not None

    def failed(self, name: str, *, is_trial: bool) -> bool:
        """Count a failure; return whether it opened the circuit. A trial's opens it again, for longer."""
        if not self._max_failures:
            return False
        circuit = self._opened.get(name) or self._failing.pop(name, None) or _Circuit()
        circuit.failures += 1
        is_first = circuit.pause_s == 0 and circuit.failures >= self._max_failures
        if is_first or is_trial:
            circuit.pause_s = min(max(circuit.pause_s * 2, self._first_s), self._longest_s)
            circuit.open_until_s = self._clock() + circuit.pause_s
        if is_trial:
            circuit.is_tried = False
        kept = self._opened if circuit.pause_s > 0 else self._failing
        kept[name] = circuit
        kept.move_to_end(name)
        if len(kept) > MAX_CIRCUITS:
            kept.popitem(last=False)
        return is_first

    def left(self, name: str, *, is_trial: bool) -> None:
        """Take back a call that says nothing about the receiver: another one may try the circuit."""
        circuit = self._opened.get(name)
        if circuit is not None and is_trial:
            circuit.is_tried = False
