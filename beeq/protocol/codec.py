"""JSON as bee-queue's Node side writes it, and job records in it.

The rules are in protocol/README.md, "JSON dialect" and "Job record".

Text in, values out; no IO and no clock. orjson does nearly all of the work. What it refuses or
would change (integers beyond 64 bits, lone surrogates, keys that are not strings) goes the exact
way round, through ``_write`` and the standard library.
"""

import gc
import json
import math
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import orjson

from beeq.errors import JobUnreadable, text_of

#: Integers of 19 digits may exceed 64 bits; orjson would read those as floats. Found by turning every
#: digit into a zero and everything else into NUL, which takes a tenth of a regular expression's time.
_DIGITS_TO_ZERO = bytes(ord("0") if chr(byte).isdecimal() and byte < 128 else 0 for byte in range(256))  # noqa: PLR2004 - ASCII
_MAYBE_BIG_INT = b"0" * 19
_NEW_RECORD = b'{"data":%b,"options":{"timestamp":%d,"stacktraces":[]},"status":"created","progress":0}'
_WORDS = {None: "null", True: "true", False: "false"}
#: How many levels of lists and objects are shown. Not every JSON library can read more.
MAX_SHOWN_LEVELS = 100
#: From this size on, a text may hold so many lists and objects that parsing it sets off the collector often.
_LARGE_BYTES = 50_000 if sys.version_info < (3, 12) else sys.maxsize
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def dumps(value: Any) -> bytes:
    r"""Return ``value`` as compact JSON that every Node peer can parse.

    NaN and infinities become ``null``; integers of any size are written exactly; a lone surrogate
    is written as ``\udxxx``, as ``JSON.stringify`` does.

    Raises:
        TypeError: ``value`` is circular, nested too deeply, or holds something without a JSON form; or its
            own code, called to read its members, raised anything.
    """
    try:
        return orjson.dumps(value)
    except Exception:  # noqa: BLE001 - what it refuses may still be written the exact way
        return _dumps_exactly(value)


def dumps_shown(value: Any) -> bytes:
    """Return ``value`` as JSON for display: what cannot be written is made ``shallow``."""
    try:
        return dumps(value)
    except TypeError:
        return dumps(shallow(value))


def shallow(value: Any, *, as_text: Callable[[Any], str] = str, levels_left: int = MAX_SHOWN_LEVELS) -> Any:
    """Return a value that can be written as JSON: ``(nested too deeply)`` replaces deeper parts.

    Values without a JSON type become what ``as_text`` makes of them.
    """
    if isinstance(value, dict | list) and not levels_left:
        return "(nested too deeply)"
    if isinstance(value, dict):
        return {
            str(name): shallow(entry, as_text=as_text, levels_left=levels_left - 1)
            for name, entry in value.items()
        }
    if isinstance(value, list):
        return [shallow(entry, as_text=as_text, levels_left=levels_left - 1) for entry in value]
    return value if value is None or isinstance(value, str | int | float) else as_text(value)


def _dumps_exactly(value: Any) -> bytes:
    try:
        return _write(value)
    except (KeyboardInterrupt, TypeError):
        raise
    except RecursionError:
        raise TypeError("value is nested too deeply to be written as JSON") from None
    except BaseException as error:  # noqa: BLE001 - an integer too long, or what a member's code raised
        raise TypeError(f"value cannot be written as JSON: {text_of(error)}") from None


def loads(text: bytes) -> Any:
    """Return the value of JSON ``text``.

    Raises:
        ValueError: the text is not JSON. ``NaN`` and ``Infinity`` are not: Node refuses them too.
    """
    if text.translate(_DIGITS_TO_ZERO).find(_MAYBE_BIG_INT) < 0:  # ``in`` takes bytes for a number first
        try:
            return orjson.loads(text) if len(text) < _LARGE_BYTES else _loads_large(text)
        except orjson.JSONDecodeError:
            pass  # it may be a lone surrogate, which the exact parser knows
    try:
        # Decoded here: json would guess at UTF-16 and UTF-32, which no peer can read.
        return json.loads(text.decode(), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _loads_large(text: bytes) -> Any:
    """Parse without a pass of the cyclic garbage collector, which would take nine tenths of the time.

    Until Python 3.12 the collector runs repeatedly over all values made so far; JSON has no cycles. Nothing
    else runs meanwhile, since the parser holds the interpreter's lock.
    """
    if not gc.isenabled():
        return orjson.loads(text)
    gc.disable()
    try:
        return orjson.loads(text)
    finally:
        gc.enable()


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _write(value: Any) -> bytes:
    """Write exactly what orjson refuses."""
    text = _exact(value, set())
    if _LONE_SURROGATE.search(text):
        # Two halves of one character are a character; what stays alone is escaped.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        text = _LONE_SURROGATE.sub(lambda half: f"\\u{ord(half[0]):04x}", text)
    return text.encode()


def _exact(value: Any, around: set[int]) -> str:
    """Return a value's JSON; ``around`` are the ids of the containers around it, to detect cycles."""
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool):
        return _WORDS[value]
    if isinstance(value, str):
        return json.dumps(str.__str__(value), ensure_ascii=False)
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value) if math.isfinite(value) else "null"
    if not isinstance(value, dict | list | tuple):
        # Dates, UUIDs, dataclasses, enums: all types that orjson writes by itself.
        return orjson.dumps(value).decode()
    if id(value) in around:
        raise TypeError("circular structure cannot be written as JSON")
    around.add(id(value))
    if isinstance(value, dict):
        # Another thread may change it meanwhile: ``copy`` is one step, a list of the items is not.
        items = (value.copy() if type(value) is dict else value).items()
        text = (
            "{"
            + ",".join([f"{_exact(_key(key), around)}:{_exact(member, around)}" for key, member in items])
            + "}"
        )
    else:
        text = "[" + ",".join([_exact(element, around) for element in list(value)]) + "]"
    around.discard(id(value))
    return text


def _key(key: Any) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool):
        return _WORDS[key]
    if isinstance(key, int):
        return int.__repr__(key)
    if isinstance(key, float):
        return float.__repr__(key)
    raise TypeError(f"a JSON object's key must be a string, not {type(key).__name__}")


class RecordLike(Protocol):
    """The source of a written record: a ``Record``, or a job."""

    data: Any
    options: dict[str, Any]
    status: str
    progress: Any


@dataclass(slots=True)
class Record:
    """A job as its record in the ``jobs`` hash says."""

    data: Any
    options: dict[str, Any]
    status: str = "created"
    progress: Any = 0


class Model(Protocol):
    """A pydantic model; its JSON is stored. A protocol, because importing pydantic takes long."""

    def model_dump(self, *, mode: str, by_alias: bool) -> Any:
        """Return what the model's JSON is made of."""


def plain(data: Any) -> Any:
    """Return a pydantic model as its JSON has it, None as ``{}``, anything else unchanged."""
    if data is None:
        return {}
    if type(data) is not dict and hasattr(type(data), "model_dump"):
        return data.model_dump(mode="json", by_alias=True)
    return data


def payload(data: Any) -> Any:
    """Return ``data`` as bee-queue's ``createJob`` stores it: what JavaScript calls falsy becomes ``{}``."""
    if data is None or data is False or data == "":
        return {}
    if isinstance(data, int | float) and not isinstance(data, bool) and (not data or data != data):  # noqa: PLR0124 - NaN is the one value unequal to itself
        return {}
    return data


def encode_record(record: RecordLike) -> bytes:
    """Return the record's JSON: exactly four keys, in bee-queue's order. Raises what ``dumps`` raises."""
    return dumps(
        {
            "data": record.data,
            "options": record.options,
            "status": record.status,
            "progress": record.progress,
        }
    )


def encode_new_record(data: Any, created_ms: int) -> bytes:
    """Return the JSON of a new record with that data, as ``encode_record`` would, but faster."""
    try:
        text = orjson.dumps(data)
    except Exception:  # noqa: BLE001 - as ``dumps``, which is one more call
        text = _dumps_exactly(data)
    return _NEW_RECORD % (text, created_ms)


def decode_record(job_id: str, raw: bytes, *, now_ms: int) -> Record:
    """Return the record in ``raw``; see ``read_record``."""
    return Record(*read_record(job_id, raw, now_ms=now_ms))


def read_record(job_id: str, raw: bytes, *, now_ms: int) -> tuple[Any, dict[str, Any], str, Any]:
    """Return data, options, status and progress in ``raw``; tolerant where bee-queue is.

    protocol/README.md, "Job record", says where. A missing timestamp becomes ``now_ms``.

    Raises:
        JobUnreadable: the text is not a JSON object.
    """
    try:
        members = loads(raw)
    except ValueError as error:
        raise JobUnreadable(job_id, raw, str(error)) from None
    if not isinstance(members, dict):
        raise JobUnreadable(job_id, raw, "not a JSON object")
    options = members.get("options")
    if not isinstance(options, dict):
        options = {}
    if not options.get("timestamp"):
        options["timestamp"] = now_ms
    traces = options.get("stacktraces")
    if not isinstance(traces, list):
        # A Node worker would throw on this record for ever; a list is what it needs.
        options["stacktraces"] = [traces] if traces else []
    data = members.get("data")
    status, progress = members.get("status", "created"), members.get("progress", 0)
    return {} if data is None else data, options, status, progress
