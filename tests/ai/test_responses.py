"""What the provider's answers mean: texts, pictures, videos in the making, reasons."""

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
from beeq.ai.responses import Stage, VideoState
from beeq.ai.script import script

pytestmark = pytest.mark.fast


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
        ({"data": [{"b64_json": "iVBO\nRw0K"}]}, "not base64"),
        ({"error": {"code": "busy"}}, "<busy>"),
    ],
)
def test_an_answer_without_a_picture_fails_and_says_why(answer: Any, reason: str) -> None:
    with pytest.raises(AIFailed, match=reason):
        responses.picture(answer, quote)


@pytest.mark.parametrize("video", ["v1", "../x", "a/b?c#d", "vidéo 1", "...", "x" * 512])
def test_an_id_may_hold_whatever_can_be_shown(video: str) -> None:
    assert responses.video_id({"id": video, "status": "queued"}, quote) == video


@pytest.mark.parametrize(
    "video", [None, "", ".", "..", 5, True, ["v1"], "x" * 513, "a\nb", "a\0", "\ud800", "\u202e"]
)
def test_an_id_that_cannot_be_asked_for_fails(video: Any) -> None:
    with pytest.raises(AIFailed, match="no usable id"):
        responses.video_id({"id": video, "status": "queued"}, quote)


def test_an_order_that_was_answered_with_an_error_says_so() -> None:
    with pytest.raises(AIFailed, match="<no more credit>"):
        responses.video_id({"error": {"message": "no more credit"}}, quote)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"status": "queued", "progress": 0}, VideoState(Stage.WORKING, 0)),
        ({"status": "in_progress", "progress": 41.5}, VideoState(Stage.WORKING, 41.5)),
        ({"status": "whatever comes next year"}, VideoState(Stage.WORKING)),
        ({"status": "queued", "error": None, "progress": None}, VideoState(Stage.WORKING)),
        ({"status": "queued", "progress": True}, VideoState(Stage.WORKING)),
        ({"status": "queued", "progress": "50"}, VideoState(Stage.WORKING)),
        ({"status": "queued", "progress": 10**400}, VideoState(Stage.WORKING, 100)),
        ({"status": "queued", "progress": -7}, VideoState(Stage.WORKING, 0)),
        ({"status": "completed", "progress": 100}, VideoState(Stage.DONE, 100)),
        ({"status": "SUCCEEDED", "url": "http://a/"}, VideoState(Stage.DONE, url="http://a/")),
        ({"status": "completed", "url": ""}, VideoState(Stage.DONE)),
        ({"status": "completed", "url": 5}, VideoState(Stage.DONE)),
        ({"status": "failed"}, VideoState(Stage.FAILED, reason="<failed>")),
        ({"status": "cancelled", "error": None}, VideoState(Stage.FAILED, reason="<cancelled>")),
        (
            {"status": "failed", "error": {"code": "moderation", "message": "no bees"}},
            VideoState(Stage.FAILED, reason="<no bees>"),
        ),
        (
            {"status": "failed", "error": {"code": "moderation"}},
            VideoState(Stage.FAILED, reason="<moderation>"),
        ),
        ({"status": "expired", "error": "too late"}, VideoState(Stage.FAILED, reason="<too late>")),
    ],
)
def test_a_status_says_where_a_video_is(answer: Any, state: VideoState) -> None:
    assert responses.video_state(answer, quote) == state


@pytest.mark.parametrize("answer", [None, [], "completed", {}, {"status": None}, {"status": 5}])
def test_an_answer_without_a_status_says_nothing_of_a_video(answer: Any) -> None:
    with pytest.raises(AIFailed, match="no status"):
        responses.video_state(answer, quote)


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
    lambda answer: responses.video_id(answer, quote),
    lambda answer: responses.video_state(answer, quote),
    lambda answer: script(json.dumps(answer)),
]


@pytest.mark.parametrize("read", READERS)
@settings(deadline=None)  # a busy machine is no fault
@given(answer=ANSWERS)
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
