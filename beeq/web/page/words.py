"""Formats values: as text, as one line, as a tree. Pure; the clock is the caller's.

All text of a job is untrusted. ``visible`` escapes characters that would hide something or change the order
of others; templates escape HTML.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from markupsafe import Markup, escape

from beeq.errors import escaped
from beeq.protocol.codec import dumps_shown

#: The most values of a tree; the rest is marked as left out.
MOST_NODES = 1500
#: Characters of one text within a tree, and of all texts together.
LONGEST_TEXT = 2000
MOST_CHARACTERS = 100_000
_PREVIEW = 160
#: How much of a value is written for its preview.
_PREVIEW_ITEMS, _PREVIEW_LEVELS = 8, 3
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000))
_KIB = 1024
_KINDS = {type(None): "null", bool: "true or false"}
_OPEN_LEVELS, _MOST_LEVELS = 3, 60
_MANY_ENTRIES = 40


def visible(value: Any) -> str:
    """Return the value as one line without invisible characters."""
    return escaped(str(value))


def cut(text: str, limit: int) -> str:
    """Return the text, or its beginning and an ellipsis."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def lines_of(text: str, limit: int = 20_000) -> list[str]:
    """Return the lines of a long text, each without what hides; the end of a very long one is left out."""
    shown = [escaped(line.expandtabs(4)) for line in text[:limit].rstrip("\n").split("\n")]
    if len(text) > limit:
        shown.append(f"… {len(text) - limit} more characters")
    return shown


def duration(duration_ms: float) -> str:
    """Return a duration in its two largest units: ``3m 12s``."""
    if not math.isfinite(duration_ms):
        return "?"
    whole_ms = max(0, round(duration_ms))
    for (large, large_ms), (small, small_ms) in pairwise(_UNITS):
        if whole_ms >= large_ms:
            rest = whole_ms % large_ms // small_ms
            return f"{whole_ms // large_ms}{large}" + (f" {rest}{small}" if rest else "")
    if whole_ms < 1000:  # noqa: PLR2004 - a second
        return f"{whole_ms}ms"
    seconds = whole_ms / 1000
    return f"{seconds:.1f}s" if seconds < 10 else f"{int(seconds)}s"  # noqa: PLR2004 - from there on, whole seconds


def moment(at_ms: float) -> str:
    """Return a time of UTC; one that no calendar has, as it is."""
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, OSError, ValueError):
        return f"{at_ms:.0f} ms"


def number(count: float) -> str:
    """Return a count with its thousands apart."""
    return f"{count:,}".replace(",", "\u202f")


def size(byte_count: float) -> str:
    """Return a number of bytes for a person."""
    amount, unit = float(byte_count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < _KIB or unit == "TiB":
            break
        amount /= _KIB
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def without_own_id(data: Any, job_id: str) -> Any:
    """Return a job's data without its id and its time, which built-in jobs hold and a list shows already."""
    if not isinstance(data, dict) or data.get("id") != job_id:
        return data
    return {name: value for name, value in data.items() if name not in ("id", "createdAt")}


def preview(value: Any) -> str:
    """Return the first words of a value, as JSON."""
    text = dumps_shown(_bounded(value, _PREVIEW_LEVELS)).decode(errors="replace")
    return cut(escaped(text[: _PREVIEW + 1]), _PREVIEW)


def _bounded(value: Any, levels: int) -> Any:
    if isinstance(value, str):
        return cut(value, _PREVIEW)
    if isinstance(value, dict | list) and not levels and value:
        return "…"
    if isinstance(value, dict):
        return {
            cut(str(name), _PREVIEW): _bounded(entry, levels - 1)
            for name, entry in _first(value.items(), _PREVIEW_ITEMS)
        }
    if isinstance(value, list):
        return [_bounded(entry, levels - 1) for entry in value[:_PREVIEW_ITEMS]]
    return value


def _first(items: Any, count: int) -> Iterator[Any]:
    return (item for item, _ in zip(items, range(count), strict=False))


def shape(value: Any) -> Any:
    """Return a value's shape: its names, and what kind of value each has; of a large value the first ones."""
    return _shape(value, 4, [MOST_NODES])


def _shape(value: Any, levels: int, left: list[int]) -> Any:
    """Return the shape up to so many levels, and as many values as ``left`` counts down."""
    left[0] -= 1
    if isinstance(value, dict):
        if not levels or left[0] <= 0:
            return f"object of {len(value)}"
        names = _first(value.items(), min(100, left[0]))
        return {str(name): _shape(entry, levels - 1, left) for name, entry in names}
    if isinstance(value, list):
        if not levels or not value:
            return f"list of {len(value)}"
        return [f"list of {len(value)}, the first:", _shape(value[0], levels - 1, left)]
    return f"text of {len(value)}" if isinstance(value, str) else _KINDS.get(type(value), "number")


def json_tree(value: Any) -> Markup:
    """Return a value as nested lists of HTML that open and close; numbers are as in the record.

    It marks where a large value is cut: up to ``MOST_NODES`` values are shown, with ``MOST_CHARACTERS``
    together.
    """
    tree = _Tree()
    tree.add(value)
    return Markup("".join(tree.pieces))  # noqa: S704 - each piece is escaped


class _Tree:
    """Writes one value, piece after piece."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._values_left = MOST_NODES
        self._characters_left = MOST_CHARACTERS

    def add(self, value: Any, level: int = 0) -> None:
        self._values_left -= 1
        if isinstance(value, dict):
            self._add_group("{", "}", value, level)
        elif isinstance(value, list):
            self._add_group("[", "]", value, level)
        elif isinstance(value, str):
            text, rest = self._beginning(value)
            self._add_leaf("s", dumps_shown(text).decode(errors="replace"), rest)
        else:
            self._add_leaf("n", *self._beginning(dumps_shown(value).decode(errors="replace")))

    def _beginning(self, text: str) -> tuple[str, int]:
        """Return as much of a text as is shown, and how many characters are left out."""
        shown = text[: max(0, min(LONGEST_TEXT, self._characters_left))]
        self._characters_left -= len(shown)
        return shown, len(text) - len(shown)

    def _add_leaf(self, kind: str, text: str, rest: int) -> None:
        self.pieces.append(f'<span class="{kind}">{escape(visible(text))}</span>')
        if rest:
            self.pieces.append(f" <em>… {number(rest)} more characters</em>")

    def _add_group(self, left: str, right: str, value: dict[Any, Any] | list[Any], level: int) -> None:
        count = len(value)
        if not count:
            self._add_leaf("n", left + right, 0)
            return
        is_open = not level or (level < _OPEN_LEVELS and count <= _MANY_ENTRIES)
        opening = "<details open>" if is_open else "<details>"
        self.pieces.append(f'{opening}<summary>{left} <span class="c">{count}</span></summary><ul>')
        for entry_count, entry in enumerate(value):
            if self._values_left <= 0 or self._characters_left <= 0 or level >= _MOST_LEVELS:
                self.pieces.append(f"<li><em>… {number(count - entry_count)} more</em></li>")
                break
            self.pieces.append("<li>")
            if isinstance(value, dict):
                name, rest = self._beginning(str(entry))
                self.pieces.append(f'<span class="k">{escape(visible(name))}{"…" if rest else ""}</span>: ')
            self.add(value[entry] if isinstance(value, dict) else entry, level + 1)
            self.pieces.append("</li>")
        self.pieces.append(f"</ul>{right}</details>")
