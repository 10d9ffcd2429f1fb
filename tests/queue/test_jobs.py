"""The built-in job types: what is valid, what every fault is called, and what goes on the wire."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest

from beeq.jobs import JOB_TYPES, AIGenerationJob, InvalidJob, MediaProcessingJob, WebhookJob, fill, validate
from beeq.protocol.options import check_backoff, check_retries, check_timeout_ms

pytestmark = pytest.mark.fast

BASE = {
    "id": "6b1f6f3e-4a3c-4f3e-9d55-3f8f2b2f9c11",
    "projectId": "p1",
    "userId": "u1",
    "createdAt": "2026-01-02T03:04:05.678Z",
}
VALID: list[tuple[str, dict[str, Any]]] = [
    ("ai-generation", {"type": "script", "prompt": "", "parameters": {"genre": "noir"}}),
    ("ai-generation", {"type": "scene-description", "prompt": "a street", "parameters": {}}),
    ("ai-generation", {"type": "image", "prompt": "x", "parameters": {"style": 1}, "modelId": "m"}),
    ("ai-generation", {"type": "video", "prompt": "x", "parameters": {"imageUrl": "http://a"}}),
    (
        "media-processing",
        {"type": "video-stitch", "inputFiles": ["a", "b"], "outputPath": "c", "parameters": {}},
    ),
    (
        "media-processing",
        {"type": "audio-stitch", "inputFiles": ["a"], "outputPath": "c", "parameters": {"x": [1]}},
    ),
    (
        "media-processing",
        {"type": "music-mix", "inputFiles": ["a"], "outputPath": "c", "parameters": {"musicTrack": "m"}},
    ),
    (
        "media-processing",
        {"type": "frame-extract", "inputFiles": ["%d", "-x"], "outputPath": "c", "parameters": {}},
    ),
    ("video-assembly", {"sceneVideos": ["a"], "masterAudio": "b", "outputFormats": ["mp4", "webm", "mov"]}),
    (
        "webhook-processing",
        {"webhookUrl": "https://a.example:8443/x?y", "payload": {"a": None}, "retryCount": 2},
    ),
]


@pytest.mark.parametrize(("queue", "fields"), VALID)
def test_a_valid_job_goes_on_the_wire_as_it_came(queue: str, fields: dict[str, Any]) -> None:
    for wire in (
        BASE | fields,
        fields,
        BASE | fields | {"projectId": 7, "extra": {"kept": [1, None]}, "userId": None},
    ):
        assert validate(queue, wire).model_dump(by_alias=True, mode="json") == wire


def test_python_names_are_as_good_as_the_wires() -> None:
    job = validate("media-processing", {"type": "frame-extract", "input_files": ["a"], "output_path": "b"})
    assert job == MediaProcessingJob(type="frame-extract", input_files=["a"], output_path="b")
    assert job.model_dump(by_alias=True, mode="json") == {
        "type": "frame-extract",
        "inputFiles": ["a"],
        "outputPath": "b",
        "parameters": {},
    }


def test_a_moment_of_pythons_is_written_as_javascript_does() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
    job = AIGenerationJob.model_validate({"type": "script", "created_at": moment})
    assert job.created_at == "2026-01-02T03:04:05.678Z"


MEDIA = {"type": "frame-extract", "inputFiles": ["a"], "outputPath": "b"}
HOOK = {"webhookUrl": "http://a", "payload": {}}
ASSEMBLY = {"sceneVideos": ["a"], "masterAudio": "b", "outputFormats": ["mp4"]}


@pytest.mark.parametrize(
    ("queue", "data", "faults"),
    [
        ("media-processing", MEDIA | {"type": "explode"}, ["type: unknown: 'explode'; known are video-stitch"]),
        ("media-processing", MEDIA | {"type": 3}, ["type: input should be"]),
        ("media-processing", MEDIA | {"inputFiles": []}, ["inputFiles: must not be empty"]),
        ("media-processing", MEDIA | {"inputFiles": "a"}, ["inputFiles: input should be a valid list"]),
        ("media-processing", MEDIA | {"inputFiles": ["a", "", 3]}, ["inputFiles[1]: must not", "inputFiles[2]: input"]),
        ("media-processing", MEDIA | {"inputFiles": ["a"] * 251}, ["inputFiles: must have at most 250 entries, not 251"]),
        ("media-processing", MEDIA | {"inputFiles": [0] * 500_000}, ["inputFiles: must have at most 250 entries, not 500000"]),
        ("media-processing", MEDIA | {"outputPath": "a\0b"}, ["outputPath: must not hold a NUL character"]),
        ("media-processing", MEDIA | {"outputPath": "a" * 4097}, ["outputPath: must have at most 4096"]),
        ("media-processing", MEDIA | {"outputPath": "\ud800"}, ["outputPath: must be valid Unicode"]),
        ("media-processing", MEDIA | {"parameters": []}, ["parameters: input should be a valid dictionary"]),
        ("media-processing", MEDIA | {"type": "music-mix"}, ["parameters: musicTrack must be given"]),
        ("media-processing", MEDIA | {"type": "music-mix", "parameters": {"musicTrack": ""}}, ["parameters: musicTrack must not be empty"]),
        (
            "media-processing",
            MEDIA
            | {
                "type": "music-mix",
                "parameters": {"musicTrack": "m", "musicVolume": "-6", "ducking": "yes", "fadeIn": -1, "loop": 1},
            },
            [
                ("parameters: musicVolume: must be a number of dB from -60 to 20; "
                "ducking: must be true, false, or a number of dB from 0 to 60; "
                "loop: input should be a valid boolean; fadeIn: must be a number of seconds from 0 to 3600")
            ],
        ),
        ("media-processing", {}, ["type: field required", "inputFiles: field required", "outputPath: field required"]),
        ("media-processing", [MEDIA], ["a job must be an object, not list"]),
        ("media-processing", None, ["a job must be an object, not NoneType"]),
        ("ai-generation", {"type": "image", "prompt": ""}, ["prompt: must not be empty"]),
        ("ai-generation", {"type": "video"}, ["prompt: field required"]),
        ("ai-generation", {"type": "script", "prompt": 3}, ["prompt: input should be a valid string"]),
        ("video-assembly", ASSEMBLY | {"sceneVideos": []}, ["sceneVideos: must not be empty"]),
        ("video-assembly", ASSEMBLY | {"sceneVideos": [{}] * 500_000}, ["sceneVideos: must have at most 250"]),
        ("video-assembly", ASSEMBLY | {"outputFormats": [0] * 500_000}, ["outputFormats: must have at most 250"]),
        ("video-assembly", ASSEMBLY | {"outputFormats": []}, ["outputFormats: must not be empty"]),
        ("video-assembly", ASSEMBLY | {"outputFormats": ["mp4", "mp4"]}, ["outputFormats: must not name a format twice"]),
        ("video-assembly", ASSEMBLY | {"outputFormats": ["gif"]}, ["outputFormats[0]: unknown: 'gif'"]),
        ("video-assembly", ASSEMBLY | {"masterAudio": ""}, ["masterAudio: must not be empty"]),
        ("webhook-processing", HOOK | {"payload": [1]}, ["payload: input should be a valid dictionary"]),
        ("webhook-processing", HOOK | {"retryCount": -1}, ["retryCount: input should be greater than or equal to 0"]),
        ("webhook-processing", HOOK | {"retryCount": "1"}, ["retryCount: input should be a valid integer"]),
        ("webhook-processing", HOOK | {"retryCount": True}, ["retryCount: input should be a valid integer"]),
        ("webhook-processing", HOOK | {"webhookUrl": "ftp://a"}, ["webhookUrl: must be an http or https URL with a host"]),
        ("webhook-processing", HOOK | {"webhookUrl": "http://"}, ["webhookUrl: must be an http"]),
        ("webhook-processing", HOOK | {"webhookUrl": "http://[::1"}, ["webhookUrl: is not a URL"]),
        ("webhook-processing", HOOK | {"webhookUrl": "http://a:99999"}, ["webhookUrl: is not a URL"]),
        ("webhook-processing", HOOK | {"webhookUrl": "http://a/\r\nx"}, ["webhookUrl: must not hold spaces"]),
        ("webhook-processing", HOOK | {"id": ""}, ["id: must not be empty"]),
        ("webhook-processing", HOOK | {"id": 5}, ["id: input should be a valid string"]),
        ("webhook-processing", HOOK | {"createdAt": "yesterday"}, ["createdAt: must be a date and time in ISO 8601"]),
        ("webhook-processing", HOOK | {"projectId": 1.5, "userId": True}, ["projectId: must be text or", "userId: must be text or"]),
        (
            "media-processing",
            {"type": "music-mix", "inputFiles": [""], "outputPath": "", "userId": "", "createdAt": 5},
            ["userId: ", "createdAt: ", "inputFiles[0]: ", "outputPath: ", "parameters: musicTrack"],
        ),
    ],
)  # fmt: skip
def test_every_fault_of_a_bad_job_is_named(queue: str, data: Any, faults: list[str]) -> None:
    with pytest.raises(InvalidJob) as invalid:
        validate(queue, data)
    assert len(invalid.value.faults) == len(faults)
    for found, expected in zip(invalid.value.faults, faults, strict=True):
        assert found.startswith(expected)
    assert str(invalid.value) == "; ".join(invalid.value.faults)


def test_of_many_faults_the_first_are_named() -> None:
    with pytest.raises(InvalidJob) as invalid:
        validate("media-processing", MEDIA | {"inputFiles": [0] * 250})
    assert [fault.partition(":")[0] for fault in invalid.value.faults] == [
        f"inputFiles[{at}]" for at in range(20)
    ]
    assert str(invalid.value) == "; ".join([*invalid.value.faults, "and 230 more faults"])


def test_a_long_name_of_a_field_is_shortened() -> None:
    with pytest.raises(InvalidJob) as invalid:
        validate("ai-generation", {"type": "script", "parameters": {b"x" * 100_000: 1}})
    assert len(str(invalid.value)) < 500


def test_a_fault_does_not_repeat_what_was_given() -> None:
    with pytest.raises(InvalidJob) as invalid:
        validate("webhook-processing", {"webhookUrl": "ftp://user:hidden@a", "payload": "hidden"})
    assert "hidden" not in str(invalid.value)
    assert invalid.value.__suppress_context__


def test_another_queue_has_no_job_type() -> None:
    with pytest.raises(ValueError, match="'mail' is not a built-in queue"):
        validate("mail", {})


@pytest.mark.parametrize(
    ("queue", "timeout_ms", "retries", "backoff"),
    [
        ("ai-generation", 1_800_000, 3, ("exponential", 2000)),
        ("media-processing", 3_600_000, 2, ("exponential", 5000)),
        ("video-assembly", 7_200_000, 1, ("immediate", 0)),
        ("webhook-processing", 30_000, 5, ("exponential", 1000)),
    ],
)
def test_each_queue_has_its_policy_and_jobs_accept_it(
    queue: str, timeout_ms: int, retries: int, backoff: tuple[str, int]
) -> None:
    policy = JOB_TYPES[queue]
    assert (policy.timeout_ms, policy.retries, policy.backoff) == (timeout_ms, retries, backoff)
    assert check_timeout_ms(policy.timeout_ms) == timeout_ms
    assert check_retries(policy.retries) == retries
    assert check_backoff(*policy.backoff, ("immediate", "fixed", "exponential"))["strategy"] == backoff[0]


def test_what_is_missing_is_filled_in() -> None:
    filled = fill({"type": "script"})
    assert str(uuid.UUID(filled["id"], version=4)) == filled["id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", filled["createdAt"])
    assert filled["type"] == "script"


@pytest.mark.parametrize("given", [BASE, {"id": "x", "created_at": "2026-01-01"}])
def test_what_is_there_is_not_filled_in(given: dict[str, Any]) -> None:
    assert fill(given) == given


def test_a_retry_count_need_not_be_given() -> None:
    job = WebhookJob.model_validate(HOOK)
    assert job.retry_count == 0
