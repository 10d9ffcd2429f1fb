"""The JSON dialect at its edges: two writers that must agree, depth, subclasses, and what JSON.parse would refuse."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import json
import math
import uuid
from typing import Any

import pytest
from hypothesis import given, settings

from beeq.protocol.codec import dumps, loads
from tests.support.samples import json_values, nested

pytestmark = pytest.mark.fast

BOTH_WAYS: list[tuple[Any, bytes]] = [
    ({"2": 1, "1": 2}, b'{"2":1,"1":2}'),  # in the order given
    # Integers: exact, of any size.
    (2**53 + 1, b"9007199254740993"),
    (2**63 - 1, b"9223372036854775807"),
    (-(2**63), b"-9223372036854775808"),
    (-(2**63) - 1, b"-9223372036854775809"),
    (2**64 - 1, b"18446744073709551615"),
    ([10**18, {"n": -(10**30)}], b'[1000000000000000000,{"n":-1' + b"0" * 30 + b"}]"),
    ("1234567890123456789012", b'"1234567890123456789012"'),  # digits that are no number
    ("\ufeff", '"\ufeff"'.encode()),
    ("é漢😀", '"é漢😀"'.encode()),
    # Lone surrogates, as well-formed JSON.stringify writes them.
    ("a\udc00\ud800b", rb'"a\udc00\ud800b"'),
    ({"\ud83d": "é"}, '{"\\ud83d":"é"}'.encode()),
    # … beside everything else that then takes the exact way round.
    (["\ud800", 2**70, '\x00\x1f"\\\b\t\n\f\r/é\u2028\x7f', None, True, False, -1.5, {}, [], {"": {"a": []}}],
     '["\\ud800",1180591620717411303424,"\\u0000\\u001f\\"\\\\\\b\\t\\n\\f\\r/é\u2028\x7f",null,true,false,-1.5,{},[],{"":{"a":[]}}]'.encode()),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), BOTH_WAYS, ids=lambda side: ascii(side)[:40])
def test_values_and_their_bytes_are_each_others(value: Any, text: bytes) -> None:
    assert dumps(value) == text
    assert loads(text) == value
    assert type(loads(text)) is type(value)


class Word(enum.Enum):
    """Plain enum."""

    A = "a"


class TextWord(str, enum.Enum):  # noqa: UP042 - its str() is not its value, which is the point
    """Text that calls itself something else."""

    A = "a"


class Number(enum.IntEnum):
    """Number that calls itself something else."""

    ONE = 1


class Text(str):
    """Text of a type of its own."""

    __slots__ = ()


WRITTEN: list[tuple[Any, bytes]] = [
    # What JSON has no number for is null, whichever way it goes.
    ({"a": [math.nan, 1]}, b'{"a":[null,1]}'),
    ([math.nan, math.inf, -math.inf, 2**70], b"[null,null,null,1180591620717411303424]"),
    ((1, (2**70,)), b"[1,[1180591620717411303424]]"),
    # Two halves of one character are that character.
    ("\ud83d\ude00\ud83d", '"😀\\ud83d"'.encode()),
    # Keys become text.
    ({1: "a", None: "b", False: "d", 1.5: "e", -3: "f"}, b'{"1":"a","null":"b","false":"d","1.5":"e","-3":"f"}'),
    ({True: "c"}, b'{"true":"c"}'),
    ({2**70: 1}, b'{"1180591620717411303424":1}'),
    # Values with a common text.
    (dt.datetime(2026, 1, 2, 3, 4, 5), b'"2026-01-02T03:04:05"'),  # noqa: DTZ001 - naive on purpose
    (dt.date(2026, 1, 2), b'"2026-01-02"'),
    (dt.time(3, 4), b'"03:04:00"'),
    (uuid.UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
    ([dt.date(2026, 1, 2), 2**70], b'["2026-01-02",1180591620717411303424]'),
    # Subclasses are written as what they are, whichever way they go.
    ([Word.A, TextWord.A, Number.ONE, Text("t")], b'["a","a",1,"t"]'),
    ([Word.A, TextWord.A, Number.ONE, Text("t"), 2**70], b'["a","a",1,"t",1180591620717411303424]'),
    ({TextWord.A: 1}, b'{"a":1}'),
    ({Number.ONE: 1}, b'{"1":1}'),
    ({Text("t"): 1}, b'{"t":1}'),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), WRITTEN, ids=lambda side: ascii(side)[:40])
def test_what_json_has_another_word_for_is_written_with_that(value: Any, text: bytes) -> None:
    assert dumps(value) == text


def circular_list() -> list[Any]:
    circle: list[Any] = [1]
    circle.append(circle)
    return circle


def circular_dict() -> dict[str, Any]:
    circle: dict[str, Any] = {"a": {"b": []}}
    circle["a"]["b"].append(circle)
    return circle


@pytest.mark.parametrize("circle", [circular_list(), circular_dict()], ids=["list", "dict"])
def test_a_circle_is_named_as_such_however_long(circle: Any) -> None:
    with pytest.raises(TypeError, match="circular"):
        dumps(circle)


@pytest.mark.parametrize(
    "value",
    [decimal.Decimal(1), [2**70, b"bytes"], {b"k": 1}, range(3), {dt.date(2026, 1, 2): 1}, print],
    ids=lambda value: repr(value)[:20],
)
def test_what_json_has_no_word_for_is_a_type_error(value: Any) -> None:
    with pytest.raises(TypeError):
        dumps(value)


@pytest.mark.parametrize("depth", [300, 400])
def test_depth_beyond_the_fast_writers_limit_is_written(depth: int) -> None:
    assert dumps(nested(depth)) == b"[" * depth + b"]" * depth
    assert loads(dumps(nested(depth))) == nested(depth)


@pytest.mark.parametrize("depth", [450, 500, 600, 800, 950])
def test_depth_is_written_or_a_type_error_at_any_stack_left(depth: int) -> None:
    try:
        text = dumps(nested(depth))
    except TypeError as error:
        assert "nested too deeply" in str(error)  # noqa: PT017 - either outcome is fine, and each is checked
    else:
        assert text == b"[" * depth + b"]" * depth


def test_no_depth_whatever_ends_the_process() -> None:
    value = nested(200_000)
    try:
        with pytest.raises(TypeError, match="nested too deeply"):
            dumps(value)
    finally:
        while value:  # taken apart from outside: no interpreter has a stack for the other way
            value = value[0]


def test_an_integer_of_too_many_digits_is_a_type_error() -> None:
    """Python itself refuses to write integers of more than 4300 digits, by a ValueError."""
    with pytest.raises(TypeError):
        dumps(10**5000)


READ: list[tuple[bytes, Any]] = [
    (b' { "a" : [ 1 , 2 ] }\n', {"a": [1, 2]}),
    (b'{"a":1,"a":2}', {"a": 2}),
    (b'{"a":1,"a":12345678901234567890}', {"a": 12345678901234567890}),
    (b"1.0", 1.0),
    (b"1e3", 1000.0),
    (b"-0", 0),
    (b"1e400", math.inf),
    (b"12345678901234567890.5", 12345678901234567890.5),
    (rb'"\u00e9\/\ud83d\ude00"', "é/😀"),
    (rb'["\ud83d", 12345678901234567890]', ["\ud83d", 12345678901234567890]),
]


@pytest.mark.parametrize(("text", "value"), READ, ids=lambda side: ascii(side)[:40])
def test_json_that_peers_may_write_otherwise_is_read(text: bytes, value: Any) -> None:
    assert loads(text) == value


@pytest.mark.parametrize(
    "text",
    [
        b" ",
        b"-Infinity",
        b'{"a":NaN,"b":12345678901234567890}',
        b"{a:1}",
        b"{}{}",
        b"undefined",
        b'"a\nb"',
        b'"\x01"',
        b'["\x01", 12345678901234567890]',
        b"[" * 200_000,
        b"9" * 5000,
        "{}".encode("utf-16-le"),
        "{}".encode("utf-16-be"),
        "{}".encode("utf-32-be"),
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda text: ascii(text)[:40],
)
def test_what_is_no_json_text_is_a_value_error(text: bytes) -> None:
    """Also text in other encodings, or behind a byte order mark: no Node peer could read it."""
    with pytest.raises(ValueError):  # noqa: PT011 - any ValueError is the promise; the texts are the parsers' own
        loads(text)


@settings(deadline=None)
@given(json_values(is_lone_surrogate_allowed=True))
def test_lone_surrogates_anywhere_leave_valid_utf8_and_survive(value: Any) -> None:
    text = dumps(value)
    text.decode()
    assert dumps(loads(text)) == text


@settings(deadline=None)
@given(json_values())
def test_both_writers_agree(value: Any) -> None:
    """A value takes the exact way round because of a neighbour; its own bytes must not change by that."""
    fast, big = dumps(value), 2**70
    exact = dumps([value, big])
    assert json.loads(exact) == [json.loads(fast), big]
    if b"e" not in fast and b"." not in fast:  # floats have several spellings
        assert exact == b"[%b,%d]" % (fast, big)
