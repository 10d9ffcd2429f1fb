"""Finds the JSON objects in a model's text, and forgives the slips that models make. No IO.

Forgiven: raw line breaks and tabs inside strings, a comma too many, comments. Everything else must be JSON.
"""

import json
import math
import re
from typing import Any, NoReturn

#: The most levels of objects and lists. A script needs four; deeper values might break readers of the result.
MAX_DEPTH = 50
#: A string or comment without its end goes to the end of the text, so that nothing is read twice.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_COMMENT = r"//[^\n]*+|/\*.*?(?:\*/|\Z)"
_TOKEN = re.compile(rf"{_STRING}|{_COMMENT}|[{{}}\[\]]", re.DOTALL)
#: Neighbouring comments and spaces become one space, so that the search for commas meets only one.
_STRING_OR_SPACE = re.compile(rf"({_STRING})|(?:{_COMMENT}|\s)++", re.DOTALL)
_STRING_OR_COMMAS = re.compile(rf"({_STRING})|([{{\[]?)(?: ?,)++( ?[}}\]])?", re.DOTALL)


def end_of_object(text: str, start: int) -> tuple[int, bool]:
    """Look for the end of what a ``{`` opens; return where the look ended, and whether it was found."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        mark = token[0]
        if mark in ("{", "["):
            depth += 1
            if depth > MAX_DEPTH:
                return token.end(), False
        elif mark in ("}", "]"):
            depth -= 1
            if depth == 0:
                return token.end(), True
    return len(text), False


def object_of(text: str) -> dict[str, Any] | None:
    """Return the object that this text is, from ``{`` to ``}``; None if it is not JSON, slips forgiven."""
    try:
        found = _decoder.decode(text)
    except (ValueError, RecursionError):
        try:
            found = _decoder.decode(_mended(text))
        except (ValueError, RecursionError):
            return None
    return found if isinstance(found, dict) else None


def _mended(text: str) -> str:
    plain = _STRING_OR_SPACE.sub(lambda found: found[1] or " ", text)
    return _STRING_OR_COMMAS.sub(_commas, plain)


def _commas(found: re.Match[str]) -> str:
    """Return a string unchanged, and a comma only if it separates two values."""
    string, opening, closing = found.groups()
    if string is not None:
        return str(string)
    return f"{opening}{closing or ''}" if opening or closing else ","


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _refuse(text)


#: ``strict=False``: strings may hold control characters.
_decoder = json.JSONDecoder(strict=False, parse_constant=_refuse, parse_float=_finite)
