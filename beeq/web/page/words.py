"""How values are shown: as text, as one line, as a tree. Pure; the clock is the caller's.

All that comes from a job is text of a stranger. ``visible`` shows characters that would hide something or
change the order of others as escapes; templates escape what is HTML.
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from beeq.errors import escaped
from beeq.protocol.codec import dumps_shown

#: Values of a tree that are shown; more are said to be left out.
MOST_NODES = 1500
#: Characters of one text within a tree.
LONGEST_TEXT = 2000
_PREVIEW = 160
#: So much of a value is written for its preview, however large it is.
_PREVIEW_ITEMS, _PREVIEW_LEVELS = 8, 3
_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000))
_KIB = 1024
_KINDS = {type(None): "null", bool: "true or false"}
_OPEN_LEVELS = 3
_MANY_ENTRIES = 40


def visible(value: Any) -> str:
    """Return the value as one line in which nothing is hidden."""
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


def preview(value: Any) -> str:
    """Return the first words of a value, as JSON."""
    text = dumps_shown(_bounded(value, _PREVIEW_LEVELS)).decode(errors="replace")
    return cut(escaped(text), _PREVIEW)


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


def shape(value: Any, levels: int = 4) -> Any:
    """Return a value's shape: its names, and what kind of value each has."""
    if isinstance(value, dict):
        if not levels:
            return f"object of {len(value)}"
        return {str(name): shape(entry, levels - 1) for name, entry in _first(value.items(), 100)}
    if isinstance(value, list):
        if not levels or not value:
            return f"list of {len(value)}"
        return [f"list of {len(value)}, the first:", shape(value[0], levels - 1)]
    return f"text of {len(value)}" if isinstance(value, str) else _KINDS.get(type(value), "number")


def json_tree(value: Any) -> Markup:
    """Return a value as nested lists of HTML that open and close; numbers are as in the record."""
    tree = _Tree()
    return tree.of(value)


class _Tree:
    """Writes one value, up to so many nodes."""

    def __init__(self) -> None:
        self._left = MOST_NODES

    def of(self, value: Any, level: int = 0) -> Markup:
        self._left -= 1
        if isinstance(value, dict):
            entries = (
                Markup('<li><span class="k">{}</span>: {}</li>').format(
                    cut(visible(name), LONGEST_TEXT), self.of(entry, level + 1)
                )
                for name, entry in value.items()
            )
            return self._group("{", "}", len(value), entries, level)
        if isinstance(value, list):
            items = (Markup("<li>{}</li>").format(self.of(entry, level + 1)) for entry in value)
            return self._group("[", "]", len(value), items, level)
        text = dumps_shown(value).decode(errors="replace")
        kind = "s" if isinstance(value, str) else "n"
        if len(text) > LONGEST_TEXT:
            rest = f"… {len(text) - LONGEST_TEXT} more characters"
            return Markup('<span class="{}">{}</span> <em>{}</em>').format(
                kind, visible(text[:LONGEST_TEXT]), rest
            )
        return Markup('<span class="{}">{}</span>').format(kind, visible(text))

    def _group(self, left: str, right: str, count: int, entries: Iterator[Markup], level: int) -> Markup:
        if not count:
            return Markup('<span class="n">{}</span>').format(left + right)
        shown: list[Markup] = []
        for entry_count in range(count):
            if self._left <= 0 or level > 60:  # noqa: PLR2004 - nobody opens so many
                shown.append(Markup("<li><em>… {} more</em></li>").format(count - entry_count))
                break
            shown.append(next(entries))
        is_open = not level or (level < _OPEN_LEVELS and count <= _MANY_ENTRIES)
        return Markup(
            '<details{}><summary>{} <span class="c">{}</span></summary><ul>{}</ul>{}</details>'
        ).format(Markup(" open") if is_open else "", left, count, Markup("").join(shown), right)
