"""What the provider says of a video: its id, its state by meaning, its URL wherever that is."""

from __future__ import annotations

from typing import Any

import pytest

from beeq.ai.errors import AIFailed
from beeq.ai.film import states
from beeq.ai.film.states import Stage, VideoState, stage_of


def quote(text: str) -> str:
    return f"<{text}>"


@pytest.mark.parametrize("video", ["v1", "../x", "a/b?c#d", "vidéo 1", "...", "x" * 512])
def test_an_id_may_hold_whatever_can_be_shown(video: str) -> None:
    assert states.video_id({"id": video, "status": "queued"}, quote) == video


@pytest.mark.parametrize(
    "video", [None, "", ".", "..", 5.5, -1, True, ["v1"], "x" * 513, "a\nb", "a\0", "\ud800", "\u202e"]
)
def test_an_id_that_cannot_be_asked_for_fails(video: Any) -> None:
    with pytest.raises(AIFailed, match="no usable id"):
        states.video_id({"id": video, "status": "queued"}, quote)


def test_an_order_that_was_answered_with_an_error_says_so() -> None:
    with pytest.raises(AIFailed, match="<no more credit>"):
        states.video_id({"error": {"message": "no more credit"}}, quote)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"status": "queued", "progress": 0}, VideoState(Stage.WORKING, 0)),
        ({"status": "in_progress", "progress": 41.5}, VideoState(Stage.WORKING, 41.5)),
        (
            {"status": "whatever comes next year"},
            VideoState(Stage.WORKING, unknown="<whatever comes next year>"),
        ),
        ({"status": "queued", "error": None, "progress": None}, VideoState(Stage.WORKING)),
        ({"status": "queued", "progress": True}, VideoState(Stage.WORKING)),
        ({"status": "queued", "progress": "50"}, VideoState(Stage.WORKING, 50)),
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
    assert states.video_state(answer, quote) == state


@pytest.mark.parametrize("answer", [None, [], "completed", {}, {"status": None}, {"status": 5}])
def test_an_answer_without_a_status_says_nothing_of_a_video(answer: Any) -> None:
    with pytest.raises(AIFailed, match="no status"):
        states.video_state(answer, quote)


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Stage.DONE, "done succeed Complete COMPLETED finished SUCCESS succeeded ready ok available"),
        (Stage.DONE, "completed_with_warnings"),
        (Stage.DONE, "TASK_STATUS_SUCCEED JOB_STATE_SUCCEEDED generation.completed taskFinished video-done"),
        (
            Stage.FAILED,
            "failure fail FAILED error errored canceled CANCELLED expired rejected aborted timeout",
        ),
        (Stage.FAILED, "TIMED_OUT TASK_STATUS_FAILED generation-failed content_filtered nsfw blocked"),
        (Stage.FAILED, "moderation_blocked completed_with_errors failed_permanently terminated not_found"),
        (Stage.WORKING, "queued in_progress IN-PROGRESS inProgress processing RUNNING submitted NOT_START"),
        (Stage.WORKING, "pending starting TASK_STATUS_PROCESSING partially_completed not_completed in_queue"),
        (Stage.WORKING, "not_started preparing still_processing not_ready"),
        (None, "frobnicating ??? 7 weiter"),
    ],
)
def test_a_state_is_read_by_its_meaning(stage: Stage | None, words: str) -> None:
    assert {word: stage_of(word) for word in words.split()} == dict.fromkeys(words.split(), stage)


URL = "https://a.example/v.mp4"


@pytest.mark.parametrize(
    "place",
    [
        {"url": URL},
        {"video_url": URL},
        {"video": URL},
        {"video": {"url": URL}},
        {"videos": [{"url": URL}]},
        {"data": [{"url": URL}]},
        {"data": {"url": URL}},
        {"data": {"task_result": {"videos": [{"url": URL}]}}},
        {"output": URL},
        {"output": [URL]},
        {"output": {"video_url": URL}},
        {"output": {"url": {"url": URL}}},
        {"result": {"data": {"video": {"url": URL}}}},
        {"content": {"video_url": URL}},
        {"metadata": {"url": URL}},
        {"generations": [{"assets": {"video": URL}}]},
        {"response": {"generatedVideos": [{"video": {"uri": URL}}]}},
        {"download_url": URL, "thumbnail_url": "https://a.example/t.png"},
        {"output": [{"thumbnail": "https://a.example/t.png", "url": URL}]},
    ],
)
def test_a_url_is_found_wherever_it_is_offered(place: dict[str, Any]) -> None:
    assert states.video_state({"status": "done", **place}, quote) == VideoState(Stage.DONE, url=URL)


@pytest.mark.parametrize(
    "place",
    [
        {"thumbnail_url": URL},
        {"urls": {"get": URL, "cancel": URL}},
        {"status_url": URL},
        {"input": {"image_url": URL}, "input_reference": {"image_url": URL}},
        {"output": "a bee"},
        {"data": []},
        {"video": None},
        {"url": "gs://bucket/v.mp4"},
    ],
)
def test_what_is_not_the_videos_url_is_not_taken_for_it(place: dict[str, Any]) -> None:
    assert states.video_state({"status": "done", **place}, quote).url is None


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ({"data": {"task_status": "succeed"}}, VideoState(Stage.DONE)),
        ({"output": {"task_status": "RUNNING"}}, VideoState(Stage.WORKING)),
        ({"state": "processing", "progress": "45%"}, VideoState(Stage.WORKING, 45)),
        ({"status": "success", "data": {"status": "processing"}}, VideoState(Stage.WORKING)),
        ({"status": "success", "data": {"status": "failed"}}, VideoState(Stage.FAILED, reason="<failed>")),
        ({"data": [{"url": URL}]}, VideoState(Stage.DONE, url=URL)),
        ({"done": False}, VideoState(Stage.WORKING)),
        ({"done": True, "error": {"message": "no"}}, VideoState(Stage.FAILED, reason="<no>")),
        ({"status": "weird", "url": URL}, VideoState(Stage.DONE, url=URL, unknown="<weird>")),
        ({"status": "running", "url": URL}, VideoState(Stage.WORKING, url=URL)),
        ({"status": "failure", "fail_reason": "no bees"}, VideoState(Stage.FAILED, reason="<no bees>")),
    ],
)
def test_a_state_is_found_one_level_down(answer: Any, state: VideoState) -> None:
    assert states.video_state(answer, quote) == state


@pytest.mark.parametrize(
    "answer",
    [
        {"task_id": "v1"},
        {"data": {"id": "v1"}},
        {"output": {"task_id": "v1"}},
        {"id": None, "video_id": "v1"},
    ],
)
def test_an_id_is_found_wherever_it_is(answer: Any) -> None:
    assert states.video_id(answer, quote) == "v1"
    assert states.video_id({"id": 77}, quote) == "77"
