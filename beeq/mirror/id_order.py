"""The order of documents by ``_id`` of any type, and places in it as text.

MongoDB sorts values type by type, but compares with ``$lt`` and ``$gt`` within one type only: where the ids
of one type end, the next types need a query of their own.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

#: The types that an ``_id`` may have, in MongoDB's order. Deprecated ones are left out.
_ORDER: tuple[tuple[str, ...], ...] = (
    ("minKey",),
    ("null",),
    ("int", "long", "double", "decimal"),
    ("string",),
    ("object",),
    ("binData",),
    ("objectId",),
    ("bool",),
    ("date",),
    ("timestamp",),
    ("maxKey",),
)
#: Types that are not in the table, such as code, come after all but this one.
_LAST = len(_ORDER) - 1
_UNREAD = "\N{REPLACEMENT CHARACTER}"
_MARK = "b."
_LONGEST_TEXT, _MOST_LEVELS = 1500, 8


@dataclass(frozen=True, slots=True)
class IdPlace:
    """A document's place: its ``_id``, which may be None, too."""

    value: Any

    @classmethod
    def behind(cls, value: Any) -> Self:
        """Return the place of a document that was read; a text with broken UTF-8 counts up to the break."""
        is_broken = isinstance(value, str) and _UNREAD in value
        return cls(value.partition(_UNREAD)[0] if is_broken else value)

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the place that a text names; raises ValueError if it names none."""
        from bson import ObjectId, decode  # noqa: PLC0415 - an extra
        from bson.errors import BSONError  # noqa: PLC0415 - an extra

        try:
            if not text.startswith(_MARK):
                return cls(ObjectId(text))
            raw = base64.urlsafe_b64decode(text.removeprefix(_MARK))
            place = cls(decode(raw, _options())[""])
        except (BSONError, ValueError, LookupError, OverflowError, RecursionError):
            raise ValueError("it does not say where to go on") from None
        if not place.text:
            raise ValueError("it does not say where to go on")
        return place

    @property
    def text(self) -> str:
        """The place as text; "" if it is too long for an address, or of a type that an ``_id`` rarely has."""
        from bson import ObjectId, encode  # noqa: PLC0415 - an extra
        from bson.errors import BSONError  # noqa: PLC0415 - an extra

        if isinstance(self.value, ObjectId):
            return str(self.value)
        try:
            if not _is_plain(self.value, _MOST_LEVELS):
                return ""
            raw = encode({"": self.value})
        except BSONError:  # within an object
            return ""
        text = _MARK + base64.urlsafe_b64encode(raw).decode()
        return text if len(text) <= _LONGEST_TEXT else ""

    @property
    def lower_types(self) -> list[str]:
        """The types whose values all come before this one."""
        rank = _rank(self.value)
        return [name for names in _ORDER[: _LAST if rank is None else rank] for name in names]

    @property
    def higher_types(self) -> list[str]:
        """The types whose values all come after this one."""
        rank = _rank(self.value)
        return [name for names in _ORDER[_LAST if rank is None else rank + 1 :] for name in names]


def _rank(value: Any) -> int | None:
    """Return the place of a value's type in the order; None if that has none."""
    from bson import (  # noqa: PLC0415 - an extra
        Code,
        DatetimeMS,
        Decimal128,
        MaxKey,
        MinKey,
        ObjectId,
        Timestamp,
    )

    kinds: tuple[tuple[type[Any] | tuple[type[Any], ...], str], ...] = (
        (bool, "bool"),
        ((int, float, Decimal128), "int"),
        (str, "string"),
        (Mapping, "object"),
        (bytes, "binData"),
        (ObjectId, "objectId"),
        ((datetime, DatetimeMS), "date"),
        (Timestamp, "timestamp"),
        (type(None), "null"),
        (MinKey, "minKey"),
        (MaxKey, "maxKey"),
    )
    if isinstance(value, Code):  # which is a str
        return None
    name = next((name for kind, name in kinds if isinstance(value, kind)), None)
    return next((rank for rank, names in enumerate(_ORDER) if name in names), None)


def _is_plain(value: Any, levels: int) -> bool:
    """Return whether a value, and all within it, can be compared by any server."""
    if isinstance(value, list):
        return levels < _MOST_LEVELS and levels > 0 and all(_is_plain(each, levels - 1) for each in value)
    if _rank(value) is None:
        return False
    if not isinstance(value, Mapping):
        return True
    return levels > 0 and all(
        not name.startswith("$") and _is_plain(each, levels - 1) for name, each in value.items()
    )


def _options() -> Any:
    from bson.codec_options import CodecOptions, DatetimeConversion  # noqa: PLC0415 - an extra

    return CodecOptions(tz_aware=True, datetime_conversion=DatetimeConversion.DATETIME_AUTO)
