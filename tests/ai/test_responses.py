"""What the provider's answers mean: texts, pictures, reasons."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beeq.ai import responses
from beeq.ai.errors import AIFailed, AIRefused
from beeq.ai.film import states
from beeq.ai.writing.script import script


def quote(text: str) -> str:
    return f"<{text}>"


def completion(content: Any, **choice: Any) -> Any:
    return {"choices": [{"message": {"content": content}, **choice}]}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (completion("Hello"), "Hello"),
        (completion(" two\nlines ", finish_reason="stop"), " two\nlines "),
        (completion([{"type": "text", "text": "in "}, {"type": "x"}, {"text": "parts"}]), "in parts"),
        ({"error": None, **completion("x")}, "x"),
    ],
)
def test_the_text_of_a_completion_is_its_first_choice(answer: Any, text: str) -> None:
    assert responses.chat_text(answer, quote) == text


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "not a chat completion"),
        ([], "not a chat completion"),
        ("text", "not a chat completion"),
        ({}, "not a chat completion"),
        ({"choices": []}, "not a chat completion"),
        ({"choices": {}}, "not a chat completion"),
        ({"choices": [None]}, "not a chat completion"),
        ({"choices": [{"message": "Hello"}]}, "not a chat completion"),
        (completion(None), "not a chat completion"),
        (completion(1), "not a chat completion"),
        (completion([1]), "not a chat completion"),
        (completion(" \n"), "wrote nothing"),
        (completion("half a", finish_reason="length"), "cut off"),
        (completion("", finish_reason="content_filter"), "content filter"),
        ({"choices": [{"message": {"content": None, "refusal": "I won't"}}]}, "refused: <I won't>"),
        ({"error": {"message": "overloaded"}}, "<overloaded>"),
        ({"error": "overloaded"}, "<overloaded>"),
    ],
)
def test_an_answer_without_a_whole_text_fails_and_says_why(answer: Any, reason: str) -> None:
    with pytest.raises(AIFailed, match=reason):
        responses.chat_text(answer, quote)


def test_a_picture_is_its_bytes_or_else_its_url() -> None:
    encoded = base64.b64encode(b"\x89PNG").decode()
    item = {"b64_json": encoded, "url": "http://a/"}
    assert responses.picture({"data": [item]}, quote) == b"\x89PNG"
    assert responses.picture({"data": [{"b64_json": None, "url": "http://a/"}]}, quote) == "http://a/"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "no picture"),
        ({"data": []}, "no picture"),
        ({"data": [{}]}, "no picture"),
        ({"data": [{"b64_json": "", "url": ""}]}, "no picture"),
        ({"data": [{"url": 5}]}, "no picture"),
        ({"data": [{"b64_json": "é"}]}, "not base64"),
        ({"data": [{"b64_json": "a"}]}, "not base64"),
        ({"error": {"code": "busy"}}, "<busy>"),
    ],
)
def test_an_answer_without_a_picture_fails_and_says_why(answer: Any, reason: str) -> None:
    with pytest.raises(AIFailed, match=reason):
        responses.picture(answer, quote)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"error": {"message": "no such model", "code": "x"}}', "no such model"),
        (b'{"error": "no such model"}', "no such model"),
        (b'{"message": "no such model"}', "no such model"),
        (b'{"detail": [{"loc": ["n"], "msg": "too many"}]}', "too many"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"error": {"message": 5}}', '{"error": {"message": 5}}'),
        (b'{"error": [[[["deep"]]]]}', '{"error": [[[["deep"]]]]}'),
        (b"<html>Bad Gateway", "<html>Bad Gateway"),
        (b"\xff", "\N{REPLACEMENT CHARACTER}"),
        (b"[" * 100_000, "[" * 100_000),
        (b"", ""),
    ],
)
def test_the_reason_of_a_refusal_is_found_in_any_body(body: bytes, text: str) -> None:
    assert responses.error_text(body) == text


NAMES = st.sampled_from(
    [
        "choices",
        "message",
        "content",
        "text",
        "refusal",
        "finish_reason",
        "data",
        "b64_json",
        "url",
        "id",
        "status",
        "progress",
        "error",
        "code",
        "title",
        "scenes",
        "description",
        "duration",
    ]
)
ANSWERS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["completed", "AAAA"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
)
READERS: list[Callable[[Any], Any]] = [
    lambda answer: responses.chat_text(answer, quote),
    lambda answer: responses.picture(answer, quote),
    lambda answer: states.video_id(answer, quote),
    lambda answer: states.video_state(answer, quote),
    lambda answer: script(json.dumps(answer)),
]


@pytest.mark.parametrize("read", READERS)
@settings(deadline=None)  # a busy machine is no fault
@given(answer=ANSWERS)
@pytest.mark.external  # it takes long
def test_no_answer_whatever_its_shape_is_worse_than_a_failure(
    read: Callable[[Any], Any], answer: Any
) -> None:
    try:
        assert read(answer) is not None
    except AIFailed as failed:
        assert 0 < len(str(failed)) <= 200  # noqa: PT017 - both ends are fine


@settings(deadline=None)
@given(body=st.binary() | ANSWERS.map(lambda answer: json.dumps(answer).encode()))
def test_no_body_of_a_refusal_is_without_a_text(body: bytes) -> None:
    assert isinstance(responses.error_text(body), str)


@pytest.mark.parametrize("kind", [AIFailed, AIRefused])
def test_messages_are_short(kind: type[Exception]) -> None:
    assert len(str(kind("x" * 200))) == 200
    assert str(kind("x" * 201)) == "x" * 199 + "…"
