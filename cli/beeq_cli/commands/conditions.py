"""``--fail-if``: a condition on a queue's numbers, such as ``waiting>1000`` or ``oldest>5m``. Pure."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from beeq.settings import parse_duration

#: The names, as ``stats --json`` has them, except for ``oldest``.
NAMES = ("waiting", "active", "succeeded", "failed", "delayed", "workers", "oldest")
_OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
}
_CONDITION = re.compile(r"\s*([A-Za-z]+)\s*(>=|<=|==|!=|>|<|=)\s*(\S.*?)\s*")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition; ``text`` is how it was written."""

    name: str
    operator: str
    value: float
    text: str

    def holds(self, numbers: Mapping[str, int | None]) -> bool:
        """Return whether it holds for a queue; a number that is None meets no condition."""
        number = numbers[self.name]
        return number is not None and _OPERATORS[self.operator](number, self.value)


def parse_condition(text: str) -> Condition:
    """Return the condition in the text, or raise ValueError."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ValueError(f"invalid condition {text!r}; write waiting>1000 or oldest>5m")
    name, sign, value = match.groups()
    if name not in NAMES:
        raise ValueError(f"cannot compare {name!r}; there are {', '.join(NAMES)}")
    return Condition(name, sign, _number(name, value), text.strip())


def _number(name: str, value: str) -> float:
    if name == "oldest":
        return parse_duration(value)
    if _NUMBER.fullmatch(value) is None:
        raise ValueError(f"{name} is compared with a number, not with {value!r}")
    return float(value)
