"""JSON and job records, byte for byte: what bee-queue writes, what beeq writes, both ways."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beeq.errors import JobUnreadable
from beeq.protocol.codec import Record, decode_record, dumps, encode_record, loads, payload

pytestmark = pytest.mark.fast

#: A value and its only spelling, in both directions.
SAME_BOTH_WAYS = [
    (None, b"null"),
    (True, b"true"),
    (False, b"false"),
    (0, b"0"),
    (-1, b"-1"),
    (1.5, b"1.5"),
    (2**53, b"9007199254740992"),
    (2**63, b"9223372036854775808"),
    (2**64, b"18446744073709551616"),
    (-(2**70), b"-1180591620717411303424"),
    (10**40, b"1" + b"0" * 40),
    ("", b'""'),
    ("größe/\x7f\u2028\u2029", '"größe/\x7f\u2028\u2029"'.encode()),
    ("😀", '"😀"'.encode()),
    ('"\\\b\t\n\f\r', rb'"\"\\\b\t\n\f\r"'),
    ("\x00\x01\x1f", rb'"\u0000\u0001\u001f"'),
    ("\ud800", rb'"\ud800"'),
    ("a\udfffb", rb'"a\udfffb"'),
    ([], b"[]"),
    ({}, b"{}"),
    ([1, [2, {}], "3"], b'[1,[2,{}],"3"]'),
    ({"b": 1, "a": {"": None}}, b'{"b":1,"a":{"":null}}'),
    (
        {"big": 2**64, "half": "\ud83d", "list": []},
        rb'{"big":18446744073709551616,"half":"\ud83d","list":[]}',
    ),
]
#: A value that is written as another one.
WRITTEN_AS = [
    (math.nan, b"null"),
    (math.inf, b"null"),
    ([-math.inf, 1], b"[null,1]"),
    ({"n": math.nan, "big": 2**64}, b'{"n":null,"big":18446744073709551616}'),
    ((1, 2), b"[1,2]"),
    ({1: "a", None: "c", False: "d"}, b'{"1":"a","null":"c","false":"d"}'),
    ({1.5: "a"}, b'{"1.5":"a"}'),
    ("\ud83d\ude00", '"😀"'.encode()),
    (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), b'"2026-01-02T03:04:05+00:00"'),
    ([datetime(2026, 1, 2, tzinfo=UTC), 2**64], b'["2026-01-02T00:00:00+00:00",18446744073709551616]'),
]
#: A record as bee-queue's own producer wrote it.
RECORDED = b'{"data":{"a":1},"options":{"timestamp":1795488864455,"stacktraces":[],"retries":3,"backoff":{"strategy":"exponential","delay":100},"timeout":50,"delay":1795488964455},"status":"created","progress":0}'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(("value", "text"), SAME_BOTH_WAYS)
def test_a_value_has_one_spelling_which_reads_as_the_value(value, text):
    assert dumps(value) == text
    assert loads(text) == value
    assert type(loads(text)) is type(value)


@pytest.mark.parametrize(("value", "text"), WRITTEN_AS)
def test_what_json_has_no_word_for_is_written_as_node_writes_it(value, text):
    assert dumps(value) == text


@given(json_values)
def test_whatever_is_written_reads_as_it_was_here_and_anywhere(value):
    text = dumps(value)
    assert loads(text) == value
    assert json.loads(text) == value


@given(st.text(alphabet=st.characters(codec=None)))
def test_any_text_at_all_survives(text):
    read = loads(dumps(text))
    # Two halves of a character are that character.
    assert read == text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


@pytest.mark.parametrize("text", [b"", b"NaN", b"[Infinity]", b"{'a':1}", b"\xff", b"01", b"[1,]", b"nul"])
def test_what_is_not_json_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words
        loads(text)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), {(1, 2): 3}, [2**64, object()], 1j])
def test_what_cannot_be_written_raises_a_type_error(value):
    with pytest.raises(TypeError):
        dumps(value)


def test_a_circle_is_named():
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(TypeError, match="circular"):
        dumps(circle)


def test_the_same_list_twice_is_no_circle():
    twin = [2**64]
    assert dumps([twin, twin]) == b"[[18446744073709551616],[18446744073709551616]]"


def test_what_is_nested_too_deeply_raises_a_type_error():
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(TypeError):
        dumps(deep)
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words
        loads(b"[" * 100_000 + b"]" * 100_000)


@pytest.mark.parametrize(
    ("given_data", "stored"),
    [
        *[(falsy, {}) for falsy in (None, False, 0, 0.0, -0.0, "", math.nan)],
        *[(kept, kept) for kept in ([], {}, True, 1, "0", [0], -1, math.inf)],
    ],
)
def test_what_javascript_calls_falsy_becomes_an_empty_object(given_data, stored):
    assert payload(given_data) == stored
    assert type(payload(given_data)) is type(stored)


def test_a_record_of_node_is_read_and_written_back_byte_for_byte():
    record = decode_record("1", RECORDED, now_ms=0)
    assert record == Record(
        data={"a": 1},
        options={
            "timestamp": 1795488864455,
            "stacktraces": [],
            "retries": 3,
            "backoff": {"strategy": "exponential", "delay": 100},
            "timeout": 50,
            "delay": 1795488964455,
        },
        status="created",
        progress=0,
    )
    assert encode_record(record) == RECORDED


@pytest.mark.parametrize(
    ("text", "record"),
    [
        (b"{}", Record({}, {"timestamp": 7, "stacktraces": []})),
        (b'{"data":null,"options":null}', Record({}, {"timestamp": 7, "stacktraces": []})),
        (
            b'{"data":[],"options":"x","status":"failed"}',
            Record([], {"timestamp": 7, "stacktraces": []}, "failed"),
        ),
        (
            b'{"options":{"timestamp":0,"stacktraces":true,"retries":null,"own":{"a":[]}},"progress":{"p":1}}',
            Record(
                {},
                {"timestamp": 7, "stacktraces": [True], "retries": None, "own": {"a": []}},
                progress={"p": 1},
            ),
        ),
        (b'{"options":{"timestamp":5,"stacktraces":null}}', Record({}, {"timestamp": 5, "stacktraces": []})),
    ],
)
def test_a_reader_is_as_tolerant_as_bee_queue(text, record):
    assert decode_record("1", text, now_ms=7) == record


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b'"job"', b"3", b'{"data":NaN}', b"\xff", b'{"data":'])
def test_what_is_no_record_is_unreadable_and_kept_in_the_error(text):
    with pytest.raises(JobUnreadable, match="Job 8 has an unreadable record") as unreadable:
        decode_record("8", text, now_ms=0)
    assert unreadable.value.raw == text
    assert unreadable.value.job_id == "8"


@given(st.dictionaries(st.text(), json_values), json_values, json_values)
def test_unknown_options_survive_reading_and_writing(options, data, progress):
    written = Record(payload(data), {"timestamp": 1, "stacktraces": [], **options}, "retrying", progress)
    written.options["timestamp"] = written.options["timestamp"] or 1
    if not isinstance(written.options["stacktraces"], list):
        written.options["stacktraces"] = []
    assert decode_record("1", encode_record(written), now_ms=0) == written
