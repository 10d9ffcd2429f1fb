"""Reads a video's id, state and file from a response. No IO.

Providers call the same things by many names and nest them differently. So states are read by meaning, from a
table of words, and ids, states and URLs are looked for where any of them puts them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from beeq.ai.errors import AIFailed
from beeq.ai.responses import Quote, reason_of

MAX_ID_LENGTH = 512
#: These would not stay one segment of a URL's path.
_NO_SEGMENT = (".", "..")
_DONE = frozenset(
    (
        "completed", "complete", "completion", "succeeded", "succeed", "success", "successful",
        "done", "finished", "finish", "fulfilled", "ready", "available", "generated", "produced",
        "delivered", "ok", "published", "ended", "end", "closed",
    )
)  # fmt: skip
_FAILED = frozenset(
    (
        "failed", "fail", "failure", "fails", "error", "errored", "errors", "cancelled", "canceled", "cancel",
        "cancelling", "canceling", "aborted", "abort", "expired", "rejected", "reject", "refused", "denied",
        "declined", "blocked", "moderated", "flagged", "filtered", "banned", "forbidden", "violation", "nsfw",
        "timeout", "timedout", "terminated", "killed", "crashed", "dead", "deleted", "removed", "invalid",
        "incomplete", "stopped", "interrupted", "revoked", "dropped", "notfound",
    )
)  # fmt: skip
_WORKING = frozenset(
    (
        "queued", "queue", "queueing", "queuing", "enqueued", "inqueue", "pending", "progress", "inprogress",
        "processing", "process", "postprocessing", "preprocessing", "running", "run", "started", "start",
        "starting", "submitted", "submit", "created", "new", "init", "initialized", "initializing",
        "accepted", "preparing", "prepared", "waiting", "wait", "working", "generating", "rendering",
        "scheduled", "active", "executing", "encoding", "uploading", "saving", "finalizing", "validating",
        "throttled", "retrying", "dispatched", "assigned", "booting", "loading", "paused",
        "ongoing", "received", "unfinished", "notstart", "notstarted",
    )
)  # fmt: skip
_NEGATIONS = frozenset(("not", "non", "un", "partially", "partial", "in", "being"))
#: Where a state may be, in this order; the first text counts.
_STATUS_NAMES = (
    "status", "state", "task_status", "taskStatus", "video_status", "job_status", "task_state", "jobStatus",
)  # fmt: skip
_ID_NAMES = (
    "id", "video_id", "videoId", "task_id", "taskId", "job_id", "jobId", "generation_id", "request_id",
    "requestId",
)  # fmt: skip
_URL_NAMES = (
    "url", "video_url", "videoUrl", "download_url", "downloadUrl", "output_url", "outputUrl", "result_url",
    "resultUrl", "file_url", "fileUrl", "play_url", "uri", "href", "link", "src",
)  # fmt: skip
#: What may hold the file, or the whole state; no thumbnails, pictures, inputs or links for polling.
_HOLDERS = (
    "video", "videos", "output", "outputs", "result", "results", "data", "file", "files", "asset", "assets",
    "artifact", "artifacts", "generation", "generations", "generated_videos", "generatedVideos", "task",
    "task_result", "taskResult", "response", "content", "works", "resource", "metadata",
    "generateVideoResponse", "generatedSamples",
)  # fmt: skip
#: Where the reason of a failure may be.
_FAULT_NAMES = (
    "error", "failure", "fail_reason", "failure_reason", "failReason", "error_message", "errorMessage",
    "task_status_msg", "fail_msg", "reason", "message", "msg", "detail",
)  # fmt: skip
_MOST_LEVELS = 5
_MOST_PLACES = 200
_LOOKS_LIKE_A_URL = re.compile(r"https?://|/[^/\s]", re.IGNORECASE)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_PERCENT = re.compile(r"\s*([0-9]{1,3}(?:\.[0-9]{1,9})?)\s*%?\s*")
_ALL = 100
#: A longer text is not a state.
_LONGEST_WORD = 200


class Stage(Enum):
    """How far a video is."""

    WORKING = "working"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class VideoState:
    """The state of a video in a response, as far as the provider gives it."""

    stage: Stage
    percent: float | None = None  # 0 to 100
    url: str | None = None  # as the provider wrote it
    reason: str = ""  # why the video failed, after ``quote``
    unknown: str = ""  # the provider's word, after ``quote``, if its meaning is not known


def video_id(response: Any, quote: Quote) -> str:
    """Return the id of a video that was requested."""
    for place in _places(response):
        for name in _ID_NAMES:
            found = place.get(name)
            if is_video_id(found):
                return str(found)
            if isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 2**64:
                return str(found)
    if text := reason_of(_get(response, "error")):
        raise AIFailed(f"AI provider: {quote(text)}")
    raise AIFailed("AI provider: there is no usable id of a video in its response")


def is_video_id(value: Any) -> bool:
    """Return whether this is an id that can be used in a URL, and kept with the job."""
    if not isinstance(value, str) or value in _NO_SEGMENT:
        return False
    return 0 < len(value) <= MAX_ID_LENGTH and value.isprintable()


def video_state(response: Any, quote: Quote) -> VideoState:
    """Return the state of a video.

    A word that is not known means that the video is still being made, unless its URL is there.
    """
    places = list(_places(response))
    words = [word for place in places if (word := _word(place))]
    url = _url(response)
    error = reason_of(_get(response, "error"))
    if words:
        word = _telling(words, has_url=url is not None)
        stage = stage_of(word)
    else:
        is_done = _get(response, "done")
        if not isinstance(is_done, bool) and (error or url is None):
            text = quote(error) if error else "there is no status of a video in its response"
            raise AIFailed(f"AI provider: {text}")
        word = "error"
        stage = Stage.WORKING if is_done is False else Stage.FAILED if error else Stage.DONE
    if stage is Stage.FAILED:
        return VideoState(Stage.FAILED, reason=quote(_fault(places) or word.lower()))
    percent = next((found for place in places if (found := _percent(place)) is not None), None)
    if stage is None:
        stage = Stage.WORKING if url is None else Stage.DONE
        return VideoState(stage, percent=percent, url=url, unknown=quote(word))
    return VideoState(stage, percent=percent, url=url)


def _telling(words: list[str], *, has_url: bool) -> str:
    """Return the word for the state: the outermost one.

    An envelope's "success" may only mean that the response is fine. Then the word inside is the state.
    """
    if stage_of(words[0]) is Stage.DONE and not has_url:
        return next((word for word in words[1:] if stage_of(word) in (Stage.WORKING, Stage.FAILED)), words[0])
    return words[0]


def stage_of(status: str) -> Stage | None:
    """Return the meaning of a provider's word, such as ``TASK_STATUS_SUCCEED``; None if it is not known."""
    words = [word.lower() for word in _WORDS.findall(status)]
    if not words:
        return None
    stages = ((Stage.DONE, _DONE), (Stage.FAILED, _FAILED), (Stage.WORKING, _WORKING))
    for text in ("".join(words), words[-1]):
        is_negated = text == words[-1] and not _NEGATIONS.isdisjoint(words[:-1])
        for stage, known in stages:
            if text in known:
                # "not_completed", "in_error": the former means that it goes on.
                return Stage.WORKING if is_negated and stage is Stage.DONE else stage
    if any(word in _FAILED for word in words):
        return Stage.FAILED
    # "completed_with_warnings"
    return Stage.DONE if words[0] in _DONE and "with" in words else None


def _places(response: Any, level: int = 0) -> Iterator[dict[str, Any]]:
    """Yield the objects of a response that may say something of the video, the outer ones first."""
    row = [response]
    count = 0
    while row and level <= _MOST_LEVELS:
        below: list[Any] = []
        for value in row:
            if isinstance(value, list):
                value = value[0] if value else None  # noqa: PLW2901 - the first of several videos
            if not isinstance(value, dict):
                continue
            count += 1
            if count > _MOST_PLACES:
                return
            yield value
            below += [value[name] for name in _HOLDERS if isinstance(value.get(name), dict | list)]
        row, level = below, level + 1


def _word(place: dict[str, Any]) -> str | None:
    found = (place.get(name) for name in _STATUS_NAMES)
    words = (word for word in found if isinstance(word, str) and len(word) <= _LONGEST_WORD)
    return next((word for word in words if word.strip()), None)


def _url(response: Any) -> str | None:
    for place in _places({"response": response}):
        for name in (*_URL_NAMES, *_HOLDERS):
            found = place.get(name)
            if isinstance(found, list):
                found = found[0] if found else None
            if isinstance(found, dict) and name in _URL_NAMES:
                found = found.get("url")
            if isinstance(found, str) and _LOOKS_LIKE_A_URL.match(found):
                return found
    return None


def _fault(places: list[dict[str, Any]]) -> str:
    found = (reason_of(place.get(name)) for place in places for name in _FAULT_NAMES)
    return next((text for text in found if text), "")


def _percent(place: dict[str, Any]) -> float | None:
    value = place.get("progress", place.get("percent", place.get("percentage")))
    if isinstance(value, str) and len(value) <= _LONGEST_WORD:
        match = _PERCENT.fullmatch(value)
        value = float(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return min(value, _ALL) if value > 0 else 0


def _get(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
