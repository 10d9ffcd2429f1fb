"""A job's data from the words of a command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from beeq_cli.fields import read_fields


def read(*words: str, stdin: bytes = b"") -> dict[str, Any]:
    return read_fields(words, read_stdin=lambda: stdin)


@pytest.mark.parametrize(
    ("words", "data"),
    [
        ((), {}),
        (("key=text",), {"key": "text"}),
        (("key=",), {"key": ""}),
        (("url=http://h/?a:=1",), {"url": "http://h/?a:=1"}),
        (("a=b=c",), {"a": "b=c"}),
        (("n:=1", "list:=[1,2]", "no:=null"), {"n": 1, "list": [1, 2], "no": None}),
        (("n=1",), {"n": "1"}),
        (("a=1", "a=2"), {"a": "2"}),
        (("big:=123456789012345678901234567890",), {"big": 123456789012345678901234567890}),
        (("schlüssel=wert 蜂",), {"schlüssel": "wert 蜂"}),
    ],
)
def test_words_make_up_an_object(words: tuple[str, ...], data: dict[str, Any]) -> None:
    assert read(*words) == data


def test_later_words_override_earlier_ones_and_files(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text('{"a": "file", "b": "file"}')
    assert read("a=word", f"@{file}", "b=word") == {"a": "file", "b": "word"}
    assert read("-", "a=word", stdin=b'{"a": "stdin", "c": 1}') == {"a": "word", "c": 1}


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read(f"@{file}") == {"a": 1}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("word",), "invalid field 'word'"),
        (("=text",), "invalid field '=text'"),
        ((":=1",), "invalid field ':=1'"),
        (("n:=",), "n: not JSON"),
        (("n:=NaN",), "NaN is not JSON"),
        (("n:={",), "n: not JSON"),
        (("@",), "cannot be read"),
        (("@missing.json",), "'missing.json' cannot be read: No such file"),
        (("@/",), "cannot be read"),
        (("-", "-"), "only once"),
        (("key=\udcff",), "not valid UTF-8"),
    ],
)
def test_a_wrong_word_is_refused_with_its_name(words: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        read(*words, stdin=b"{}")


@pytest.mark.parametrize("text", [b"[1]", b"1", b'"x"', b"null"])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match="standard input: not a JSON object"):
        read("-", stdin=text)
