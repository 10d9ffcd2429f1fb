"""Secrets in strangers' texts: redacted however they are spelled, and never shown whole or in part."""

from __future__ import annotations

import html
import json
from urllib.parse import quote, quote_plus

import pytest

from beeq.ai.redaction import Redactor

KEY = "sk-Proj_a.b+c/d=e"
PASSWORD = 'pä s&"w\\ört😀'


def every_character_encoded(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


@pytest.mark.parametrize("secret", [KEY, PASSWORD])
@pytest.mark.parametrize(
    "spell",
    [
        str,
        str.upper,
        quote,
        lambda text: quote(text, safe=""),
        lambda text: quote(text, safe="").lower(),
        quote_plus,
        every_character_encoded,
        lambda text: json.dumps(text)[1:-1],
        lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
        lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
        html.escape,
        "\x00".join,
        "\u200b".join,
    ],
)
def test_a_secret_is_redacted_however_it_is_spelled(secret: str, spell) -> None:
    text = Redactor([secret]).quoted(f"bad key: {spell(secret)}, and {spell(secret)}!")
    assert text == "bad key: ***, and ***!"


def test_the_longer_of_two_secrets_is_redacted_as_a_whole() -> None:
    assert Redactor(["secret", "secret-and-more", ""]).quoted("secret-and-more secret") == "*** ***"


def test_without_secrets_nothing_is_redacted() -> None:
    redactor = Redactor(["", ""])
    assert redactor.quoted("a *** b") == "a *** b"
    assert redactor.redacted({"a": ["b"]}) == {"a": ["b"]}
    assert not redactor.is_in("")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\r\n\tand  more ", "two lines and more"),
        ("\x1b[31mred\x07\u202e\ud800", "[31mred"),
        ("ü 😀", "ü 😀"),
    ],
)
def test_a_strangers_text_becomes_one_printable_line(text: str, shown: str) -> None:
    assert Redactor([]).quoted(text) == shown


def test_results_are_redacted_in_texts_and_keys_only() -> None:
    value = {"a": [KEY, {"b": f"x{KEY}x", KEY: 1}], "n": 2**70, "t": None, "nl": "a\nb\ud800"}
    assert Redactor([KEY]).redacted(value) == {
        "a": ["***", {"b": "x***x", "***": 1}],
        "n": 2**70,
        "t": None,
        "nl": "a\nb\ud800",
    }


def test_a_key_that_is_a_word_is_redacted_in_messages_only() -> None:
    redactor = Redactor(["none"])
    assert redactor.quoted("key none is wrong") == "key *** is wrong"
    assert redactor.redacted("There is none.") == "There is none."
    assert not redactor.is_in("none")


def test_no_secret_is_in_the_repr() -> None:
    assert KEY not in repr(Redactor([KEY]))
