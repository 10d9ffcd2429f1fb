"""A job's parameters that become fields of the request, by their names in the API. No IO.

Each is checked before anything is requested: a value that the provider would misread, or refuse after
minutes, fails the job at once.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from beeq.ai.errors import AIRefused

_MOST_DIGITS = 6
_LARGEST_SEED = 2**63

#: Returns a parameter's value for the request; raises ValueError, with what it must be.
Check = Callable[[Any], Any]


def size(value: Any) -> str:
    """Check the size of a picture: ``1280x720``, ``16:9``, ``720p``, or ``auto``."""
    if not isinstance(value, str) or not re.fullmatch(
        r"[1-9][0-9]{0,4}x[1-9][0-9]{0,4}|[1-9][0-9]?:[1-9][0-9]?|[1-9][0-9]{2,3}p|[1-8]k|auto",
        value,
        re.IGNORECASE,
    ):
        raise ValueError('must be text such as "1280x720"')
    return value.lower()


def seconds(value: Any) -> str:
    """Check a length; the API wants it as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**_MOST_DIGITS:
        raise ValueError("must be a number of seconds above 0")
    return str(int(value)) if value == math.floor(value) else str(value)


def word(value: Any) -> str:
    """Check a name that the API defines, such as ``hd``."""
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        raise ValueError('must be a word such as "high"')
    return value


def seed(value: Any) -> int:
    """Check the number that random choices begin with."""
    if isinstance(value, bool) or not isinstance(value, int) or not -_LARGEST_SEED <= value < _LARGEST_SEED:
        raise ValueError("must be a whole number")
    return value


def number(lowest: float, highest: float) -> Check:
    """Return a check for a number."""

    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
            raise ValueError(f"must be a number from {lowest} to {highest}")
        return value

    return check


def count(value: Any) -> int:
    """Check a number of things, one at least."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 10**_MOST_DIGITS * 10:
        raise ValueError("must be a whole number above 0")
    return value


def text(value: Any) -> str:
    """Check a text for the model to read."""
    if not isinstance(value, str) or not value:
        raise ValueError("must be text that is not empty")
    return value


#: The fields of a request for a text. The other parameters go into the prompt.
TEXT_FIELDS: Mapping[str, tuple[str, Check]] = {
    "maxTokens": ("max_tokens", count),
    "temperature": ("temperature", number(0, 2)),
    "topP": ("top_p", number(0, 1)),
    "seed": ("seed", seed),
    "frequencyPenalty": ("frequency_penalty", number(-2, 2)),
    "presencePenalty": ("presence_penalty", number(-2, 2)),
    "reasoningEffort": ("reasoning_effort", word),
}
#: The fields of a request for a picture.
IMAGE_FIELDS: Mapping[str, tuple[str, Check]] = {
    "style": ("style", text),
    "size": ("size", size),
    "quality": ("quality", word),
    "seed": ("seed", seed),
    "background": ("background", word),
    "outputFormat": ("output_format", word),
}
#: The fields of a request for a video: the parameter, its name in the API, and its check.
VIDEO_FIELDS: Mapping[str, tuple[str, Check]] = {
    "size": ("size", size),
    "seconds": ("seconds", seconds),
    "quality": ("quality", word),
    "seed": ("seed", seed),
}


def fields(parameters: Mapping[str, Any], known: Mapping[str, tuple[str, Check]]) -> dict[str, Any]:
    """Return the fields of the request; raises AIRefused, which names each parameter that is not valid."""
    found: dict[str, Any] = {}
    faults = []
    for name, (api_name, check) in known.items():
        if (value := parameters.get(name)) is None:
            continue
        try:
            found[api_name] = check(value)
        except ValueError as error:
            faults.append(f"{name} {error}")
    if faults:
        raise AIRefused(f"bad job: parameters: {'; '.join(faults)}")
    return found
