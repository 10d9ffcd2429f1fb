"""Groups errors into kinds: errors of one kind differ in numbers and ids only. Pure."""

import re

from beeq.errors import escaped

#: A longer error line is cut before it is analysed.
_LONGEST_LINE = 1000
#: The longest kind.
_LONGEST_KIND = 200
_VARYING = re.compile(
    r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"  # a UUID
    r"|\b0x[0-9A-Fa-f]+\b|\b(?=[0-9A-Fa-f]*[0-9])[0-9A-Fa-f]{8,}\b"  # addresses, digests
    r"|\d+(?:[.,:]\d+)*"
)


def kind_of_error(trace: str) -> str:
    """Return the kind of an error by its trace, or its first line: type and text, # for what varies.

    Control characters are escaped: a kind is shown, sent in forms and typed again.
    """
    return escaped(_VARYING.sub("#", _first_line(trace))[:_LONGEST_KIND])


def line_of_error(trace: str) -> str:
    """Return the first line of a trace, cut to a kind's length, control characters escaped."""
    return escaped(_first_line(trace)[:_LONGEST_KIND])


def _first_line(trace: str) -> str:
    return trace[:_LONGEST_LINE].partition("\n")[0].strip()
