"""Videos against a real server: ordered once whatever breaks, watched with progress, kept as a file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from beeq import JobFailed, Queue
from beeq.ai import idempotency
from beeq.ai.client import Limits
from beeq.ai.errors import AIFailed
from beeq.ai.film import videos
from beeq.errors import Discard, JobLost, RedisUnavailable, Retry
from beeq.media.errors import MediaFailed
from tests.ai.server import (
    HEAD,
    KEY,
    AIJob,
    AIServer,
    Make,
    ai_job,
    answer,
    content,
    video,
    whole_text_of,
)
from tests.media.clips import colour_clip, ffmpeg, tree
from tests.support.server import Server
from tests.support.waiting import skip_time
from tests.webhooks.receiver import Script, drip, reply, send, send_for_ever

pytestmark = pytest.mark.ffmpeg

ROOT = Path(__file__).resolve().parents[2]
ORDER = "POST /v1/videos"
LOOK = "GET /v1/videos/v1"
CONTENT = "GET /v1/videos/v1/content"


@pytest.fixture
async def server(clip: bytes) -> AsyncIterator[AIServer]:
    """A provider that makes the video ``v1`` at once, unless a test says otherwise."""
    async with AIServer() as server:
        server.on(ORDER, video("queued"))
        server.on(LOOK, video("completed"))
        server.on(CONTENT, content(clip))
        yield server


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return colour_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", "lime", tone_hz=440).read_bytes()


async def test_a_video_is_ordered_watched_and_kept(
    server: AIServer, make: Make, tmp_path: Path, clip: bytes
) -> None:
    server.on(LOOK, video("queued", progress=0), video("in_progress", progress=40), video("completed"))
    job = ai_job("video")
    result = await make()(job)
    assert (result["path"], result["bytes"], result["duration"]) == (f"{job.id}.mp4", len(clip), 1.0)
    assert [stream["type"] for stream in result["streams"]] == ["video", "audio"]
    assert tree(tmp_path) == {result["path"]: clip}
    (order,) = server.asked(ORDER)
    assert order.json == {"model": "films", "prompt": "a bee"}
    assert order.headers["idempotency-key"] == f"beeq-{job.id}"
    assert {request.headers["authorization"] for request in server.requests} == {f"Bearer {KEY}"}
    assert len(server.asked(LOOK)) == 3
    assert 40 in job.reports
    assert job.reports == sorted(set(job.reports))
    assert job.reports[-1] == 100
    assert job.memory == {"video": "v1"}


async def test_without_a_word_of_the_provider_progress_is_estimated(
    server: AIServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "_USUAL_S", 1.0)  # the looks below take 0.1 s, or many times as long
    server.on(LOOK, *[video("in_progress")] * 20, video("completed"))
    job = ai_job("video")
    await make()(job)
    assert job.reports == sorted(set(job.reports))
    between = [percent for percent in job.reports if 0 < percent < 100]
    assert len(between) >= 3
    assert max(between) <= 90


async def test_a_video_that_is_there_at_once_is_not_waited_for(server: AIServer, make: Make) -> None:
    server.on(ORDER, video("completed"))
    async with asyncio.timeout(20):
        await make(ai_poll_interval_ms=60_000)(ai_job("video"))
    assert server.asked(LOOK) == []


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mov", ("-c:v", "libx264", "-preset", "ultrafast", "-f", "mov")),
        ("webm", ("-c:v", "libvpx", "-f", "webm")),
        ("mkv", ("-c:v", "libx264", "-preset", "ultrafast", "-f", "matroska")),
    ],
)
async def test_a_video_is_named_by_what_it_is(
    server: AIServer, make: Make, tmp_path: Path, suffix: str, options: tuple[str, ...]
) -> None:
    made = await asyncio.to_thread(colour_clip, tmp_path / "made", "red", options=options)
    server.on(CONTENT, content(await asyncio.to_thread(made.read_bytes), content_type="video/mp4"))
    job = ai_job("video")
    assert (await make()(job))["path"] == f"{job.id}.{suffix}"


@pytest.mark.parametrize("video_id", ["../x", "a/b", "a?b#c", "%2e%2e", "a b", "é"])
async def test_an_id_cannot_leave_its_place_in_the_url(server: AIServer, make: Make, video_id: str) -> None:
    server.on(ORDER, answer({"id": video_id, "status": "queued"}))
    with pytest.raises(AIFailed, match="does not know it"):
        await make()(ai_job("video"))
    (route,) = {look.route for look in server.requests[1:]}
    path = route.removeprefix("GET /v1/videos/")
    assert path != route
    assert not set(path) & set("/?#")


# --- Never twice ----------------------------------------------------------------------------

POLL_S = 60.0


def later(seconds: float, script: Script) -> Script:
    """Return the script, which begins when so much time has passed for its client."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        skip_time(seconds)
        await script(reader, writer)

    return play


@pytest.mark.parametrize(
    "script",
    [
        answer({"error": "busy"}, 429),
        answer({"error": "busy"}, 429, retry_after="0"),
        answer({"error": "broken"}, 500),
        answer({"error": "broken"}, 503, retry_after="0"),
        answer({}, 302, location="/elsewhere"),
        answer({"id": "v1"}),
        answer(["completed"]),
        content(b"<html>"),
        content(b'{"status": "completed", "x": "' + b"x" * 2000 + b'"}'),
        send(b""),
        send(HEAD + b"content-length: 500\r\n\r\n{"),
        later(POLL_S, send(hang_up=False)),
        later(POLL_S - 0.2, drip(HEAD + b"\r\n", b" ")),
        send_for_ever(HEAD + b"\r\n", b" " * 1000),
    ],
)
async def test_a_failure_while_watching_orders_no_second_video(
    server: AIServer, make: Make, script: Any
) -> None:
    server.on(LOOK, video("queued"), script, script, video("completed"))
    await make(Limits(poll_s=POLL_S, json_bytes=1000))(ai_job("video"))
    assert len(server.asked(ORDER)) == 1
    assert len(server.asked(LOOK)) == 4


async def test_looks_that_fail_become_rarer_up_to_a_bound(
    server: AIServer, make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(videos, "MAX_BACKOFF_S", 0.03)
    broken = answer({"error": f"broken by {KEY}"}, 500)
    server.on(
        LOOK, *[broken] * 4, answer({}, 429, retry_after="1"), video("queued"), broken, video("completed")
    )
    with caplog.at_level(logging.WARNING, "beeq"):
        await make()(ai_job("video"))
    waits = [record.getMessage().partition("next look in ")[2] for record in caplog.records]
    assert waits == ["0.0 s", "0.0 s", "0.0 s", "0.0 s", "1.0 s", "0.0 s"]
    assert "broken by ***" in caplog.text
    assert "hunter2" not in caplog.text


def test_the_wait_between_looks_doubles_within_its_bounds() -> None:
    nobody: Any = None  # none of them is asked
    watcher = videos.Videos(nobody, 5000, nobody)
    waits = [watcher._backoff_s(failures, None) for failures in (1, 2, 3, 4, 5, 10**6)]
    assert waits == [10, 20, 40, 60, 60, 60]
    assert watcher._backoff_s(1, 3000) == 10
    assert watcher._backoff_s(1, 90_000) == 90
    assert videos.Videos(nobody, 120_000, nobody)._backoff_s(3, None) == 120


async def cancelled_when(server: AIServer, route: str, running: asyncio.Task[Any]) -> None:
    await server.until_asked(route, len(server.asked(route)) + 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_the_next_attempt_watches_what_the_last_one_ordered(
    server: AIServer, make: Make, tmp_path: Path, clip: bytes
) -> None:
    server.on(LOOK, send(hang_up=False))
    job, processor = ai_job("video"), make()
    await cancelled_when(server, LOOK, asyncio.create_task(processor(job)))
    assert job.memory == {"video": "v1"}
    await server.until_open(0)

    server.on(LOOK, video("completed"))
    server.on(CONTENT, send(HEAD + b"content-length: 99999\r\n\r\n" + clip[:3000], hang_up=False))
    await cancelled_when(server, CONTENT, asyncio.create_task(processor(job)))
    await server.until_open(0)
    assert tree(tmp_path) == {}

    server.on(CONTENT, content(clip))
    another = make(ai_poll_interval_ms=60_000)  # of another worker; the first look is not waited for
    async with asyncio.timeout(20):
        assert (await another(AIJob(job.data, memory=job.memory)))["bytes"] == len(clip)
    assert len(server.asked(ORDER)) == 1


async def test_an_order_under_way_is_kept_when_its_job_is_cancelled(server: AIServer, make: Make) -> None:
    may_answer = asyncio.Event()

    async def late(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_answer.wait()
        await video("queued")(_reader, writer)

    server.on(ORDER, late)
    job, processor = ai_job("video"), make()
    running = asyncio.create_task(processor(job))
    await server.until_asked(ORDER)
    running.cancel()
    may_answer.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert job.memory == {"video": "v1"}


async def test_an_order_without_response_ends_soon_after_a_cancel(
    server: AIServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "GRACE_S", 0.05)
    server.on(ORDER, send(hang_up=False))
    job, processor = ai_job("video"), make()
    async with asyncio.timeout(5):
        await cancelled_when(server, ORDER, asyncio.create_task(processor(job)))
        await server.until_open(0)
    assert job.memory == {}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (video("failed", error={"message": f"no bees, {KEY}"}), r"the video failed: no bees, \*\*\*"),
        (video("cancelled"), "the video failed: cancelled"),
        (
            answer({"error": {"message": "no such video"}}, 404),
            "does not know it: .*status 404: no such video",
        ),
        (answer({}, 410), "does not know it: .*status 410"),
    ],
)
async def test_only_a_definite_refusal_lets_another_video_be_ordered(
    server: AIServer, make: Make, script: Any, reason: str
) -> None:
    server.on(LOOK, script)
    job, processor = ai_job("video"), make()
    with pytest.raises(AIFailed, match=reason):
        await processor(job)
    assert job.memory == {"video": None, "orders": 1}
    assert len(server.asked(ORDER)) == 1

    server.on(ORDER, answer({"id": "v2", "status": "queued"}))
    server.on("GET /v1/videos/v2", video("completed"))
    server.on("GET /v1/videos/v2/content", content(b"none"))
    with pytest.raises(AIFailed, match="not MP4"):
        await processor(job)
    keys = [request.headers["idempotency-key"] for request in server.asked(ORDER)]
    assert keys == [f"beeq-{job.id}", f"beeq-{job.id}~1"]
    assert job.memory == {"video": "v2", "orders": 1}


async def test_an_order_that_fails_at_once_is_forgotten(server: AIServer, make: Make) -> None:
    server.on(ORDER, video("failed", error={"code": "moderation_blocked"}))
    job = ai_job("video")
    with pytest.raises(AIFailed, match="the video failed: moderation_blocked"):
        await make()(job)
    assert job.memory == {"video": None, "orders": 1}
    assert server.asked(LOOK) == []


@pytest.mark.parametrize("status", [400, 401, 403, 422])
async def test_a_refused_look_fails_the_job_and_forgets_nothing(
    server: AIServer, make: Make, status: int
) -> None:
    server.on(LOOK, answer({"error": "no"}, status))
    job = ai_job("video")
    with pytest.raises(Discard, match=f"status {status}: no"):
        await make()(job)
    assert job.memory == {"video": "v1"}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (answer({"status": "queued"}), "no usable id"),
        (answer({"id": "..", "status": "queued"}), "no usable id"),
        (answer({"id": f"of-{KEY}", "status": "queued"}), "holds the key"),
        (answer({"error": {"message": "no credit"}}), "no credit"),
        (answer({"error": "busy"}, 500), "status 500: busy"),
        (content(b"<html>"), "not JSON"),
        (send(b""), "broke off"),
    ],
)
async def test_an_order_without_an_id_is_repeated_as_the_same_order(
    server: AIServer, make: Make, script: Any, reason: str
) -> None:
    server.on(ORDER, script, script, video("queued"))
    job, processor = ai_job("video"), make()
    for _ in range(2):
        with pytest.raises(AIFailed, match=reason):
            await processor(job)
    assert job.memory == {}
    await processor(job)
    assert {request.headers["idempotency-key"] for request in server.asked(ORDER)} == {f"beeq-{job.id}"}


async def test_an_order_that_says_no_more_than_its_id_is_one(server: AIServer, make: Make) -> None:
    server.on(ORDER, answer({"id": "v1"}))
    job = ai_job("video")
    await make()(job)
    assert job.memory == {"video": "v1"}


@pytest.mark.parametrize(
    "memory",
    [
        {"video": 5},
        {"video": ".."},
        {"video": ["v1"]},
        {"orders": "x"},
        {"orders": -1},
        {"orders": 10**4000},
        {"orders": True},
    ],
)
async def test_a_memory_that_makes_no_sense_is_as_good_as_none(
    server: AIServer, make: Make, memory: dict[str, Any]
) -> None:
    job = ai_job("video")
    job.memory = memory
    await make()(job)
    assert job.memory["video"] == "v1"
    assert server.asked(ORDER)[0].headers["idempotency-key"] == f"beeq-{job.id}"


async def test_without_redis_the_video_goes_on_and_its_id_is_kept(
    server: AIServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server.on(LOOK, video("queued"), video("queued"), video("completed"))
    job = ai_job("video")
    job.faults = [RedisUnavailable("away"), RedisUnavailable("away")]
    await make()(job)
    assert job.memory == {"video": "v1"}
    assert caplog.text.count("was not kept yet: away") == 2


async def test_an_attempt_that_has_lost_its_job_ends(server: AIServer, make: Make) -> None:
    job = ai_job("video")
    job.faults = [JobLost("job-1")]
    with pytest.raises(JobLost):
        await make()(job)
    assert len(server.requests) == 1


async def test_a_video_is_not_watched_for_ever(
    server: AIServer, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "WATCH_S", 0.05)
    server.on(LOOK, video("queued"))
    job = ai_job("video")
    with pytest.raises(AIFailed, match="not ready after a day"):
        await make()(job)
    assert job.memory == {"video": "v1"}


async def test_what_cannot_be_kept_is_not_ordered(server: AIServer, make: Make, tmp_path: Path) -> None:
    with pytest.raises(MediaFailed, match="cannot be opened"):
        await make(media_root=tmp_path / "gone")(ai_job("video"))
    assert server.requests == []


# --- Fetching -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{origin}/files/v1.mp4", "/files/v1.mp4"])
async def test_a_url_of_the_providers_own_is_fetched(
    server: AIServer, make: Make, clip: bytes, form: str
) -> None:
    server.on(LOOK, video("completed", url=form.format(origin=server.origin)))
    server.on("GET /files/v1.mp4", content(clip))
    assert (await make()(ai_job("video")))["bytes"] == len(clip)
    assert server.asked("GET /files/v1.mp4")[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.asked(CONTENT) == []


async def test_a_url_of_somebody_elses_is_the_result_and_never_fetched(
    server: AIServer, make: Make, tmp_path: Path
) -> None:
    async with AIServer() as foreign:
        server.on(LOOK, video("completed", url=f"{foreign.origin}/v1.mp4?sig={KEY}"))
        assert await make()(ai_job("video")) == {"url": f"{foreign.origin}/v1.mp4?sig=***"}
        assert foreign.connections == 0
    assert tree(tmp_path) == {}


@pytest.mark.parametrize(
    ("script", "error", "reason"),
    [
        (content(b""), AIFailed, "video is empty"),
        (content(b"\x89PNG\r\n\x1a\n"), AIFailed, "not MP4"),
        (content(b"#EXTM3U\n" * 50), AIFailed, "not MP4"),
        (content(b"\0\0\0\x20ftypisom" + b"x" * 50), MediaFailed, "cannot be read"),
        (content(b"\0\0\0\x20ftypisom" + b"x" * 200_000), AIFailed, "longer than 100000 bytes"),
        (answer({}, 302), AIFailed, "redirects are not followed"),
        (answer({}, 302, location=CONTENT.split()[1]), AIFailed, "more than 5 redirects"),
        (answer({}, 302, location="ftp://a.example/v.mp4"), AIFailed, "not a valid URL"),
        (answer({}, 302, location=f"/v.mp4?key={KEY}"), AIFailed, "holds the key"),
        (answer({"error": "not yet"}, 404), AIFailed, "status 404: not yet"),
        (answer({"error": "no"}, 403), Discard, "status 403: no"),
        (answer({"status": "in_progress"}, 202), AIFailed, "has not sent the file yet"),
        (answer({"status": "failed", "error": "no bees"}), AIFailed, "cannot be fetched: no bees"),
        (answer({"error": "broken"}, 500), AIFailed, "status 500: broken"),
        (send(HEAD + b"content-length: 900\r\n\r\n" + b"\0\0\0\x20ftypisom"), AIFailed, "broke off"),
        (drip(HEAD + b"\r\n\0\0\0\x20ftypisom" + b"x" * 2000, b"x", 0.05), AIFailed, "no response in time"),
        (send_for_ever(HEAD + b"\r\n\0\0\0\x20ftypisom", b"x" * 1000), AIFailed, "longer than 100000 bytes"),
    ],
)
async def test_a_video_not_fetched_leaves_no_file_and_no_second_order(
    server: AIServer,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: Any,
    error: type[Exception],
    reason: str,
) -> None:
    monkeypatch.setattr(videos, "FILE_S", 0.01)  # asked for twice
    server.on(CONTENT, script)
    job = ai_job("video")
    # Short only for what never ends.
    download_s = 0.6 if "in time" in reason else 60
    processor = make(Limits(video_bytes=100_000, download_s=download_s))
    with pytest.raises(error, match=reason):
        await processor(job)
    assert tree(tmp_path) == {}
    assert job.memory == {"video": "v1"}
    await processor.close()
    await server.until_open(0)


@pytest.mark.parametrize(
    "late",
    [
        answer({"error": "not found"}, 404),
        answer({"error": "not ready"}, 409),
        answer({"error": "too early"}, 425),
        answer({"error": "busy"}, 429),
        answer({"error": "busy"}, 503, retry_after="0"),
        answer({"error": "broken"}, 500),
        answer({"status": "in_progress"}, 202),
        content(b""),
        content(b"", 204),
        send(b""),
        send(HEAD + b"content-length: 900\r\n\r\n" + b"\0\0\0\x20ftypisom"),
    ],
)
async def test_a_file_that_comes_later_is_asked_for_again(
    server: AIServer, make: Make, clip: bytes, tmp_path: Path, late: Script
) -> None:
    server.on(CONTENT, late, late, content(clip))
    job = ai_job("video")
    assert (await make()(job))["bytes"] == len(clip)
    assert len(server.asked(CONTENT)) == 3
    assert len(server.asked(ORDER)) == 1
    assert tree(tmp_path) == {f"{job.id}.mp4": clip}


async def test_a_file_is_asked_for_no_sooner_than_wished(server: AIServer, make: Make) -> None:
    server.on(CONTENT, answer({"error": "busy"}, 503, retry_after="3600"))
    with pytest.raises(Retry, match="status 503: busy") as caught:
        await make()(ai_job("video"))
    assert caught.value.after == 3_600_000
    assert len(server.asked(CONTENT)) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_followed_without_the_key(
    server: AIServer, make: Make, clip: bytes, status: int
) -> None:
    async with AIServer() as store:
        server.on(CONTENT, answer({}, status, location=f"{store.origin}/v1.mp4?sig=a%2Fb"))
        store.on("GET /v1.mp4?sig=a%2Fb", answer({}, 503), content(clip))
        processor = make(
            ai_allow_hosts=f"127.0.0.1:{store.port}",
            ai_headers='{"api-key": "s3cret-of-mine", "x-org": "ours"}',
        )
        assert (await processor(ai_job("video")))["bytes"] == len(clip)
        for request in store.requests:
            assert not {"authorization", "api-key", "x-org"} & set(request.headers)
            assert "s3cret" not in str(request.headers)
    assert len(server.asked(CONTENT)) == 2
    assert len(server.asked(ORDER)) == 1


async def test_a_redirect_to_a_private_address_is_refused(server: AIServer, make: Make) -> None:
    async with AIServer() as store:
        for location in (
            f"{store.origin}/v1.mp4",
            "http://169.254.169.254/v1.mp4",
            f"//localhost:{store.port}/a",
        ):
            server.on(CONTENT, answer({}, 302, location=location))
            job = ai_job("video")
            with pytest.raises(Discard, match="not on the public internet, and BEEQ_AI_ALLOW_HOSTS does not"):
                await make()(job)
            assert job.memory == {"video": "v1"}
        assert store.connections == 0


async def test_a_redirect_of_the_providers_gets_the_key_only_if_asked(
    server: AIServer, make: Make, clip: bytes
) -> None:
    server.on(CONTENT, answer({}, 302, location="/signed/v1.mp4"))
    server.on("GET /signed/v1.mp4", content(clip))
    await make()(ai_job("video"))
    (signed,) = server.asked("GET /signed/v1.mp4")
    assert "authorization" not in signed.headers

    server.on(CONTENT, answer({}, 307, location=f"{CONTENT.split()[1]}/"))
    server.on(f"{CONTENT}/", answer({"error": "who?"}, 401), content(clip))
    await make()(ai_job("video"))
    keys = [request.headers.get("authorization") for request in server.asked(f"{CONTENT}/")]
    assert keys == [None, f"Bearer {KEY}"]


async def test_a_url_in_place_of_the_file_is_fetched(server: AIServer, make: Make, clip: bytes) -> None:
    server.on(CONTENT, answer({"data": [{"url": f"{server.origin}/files/v1.mp4"}]}))
    server.on("GET /files/v1.mp4", content(clip))
    assert (await make()(ai_job("video")))["bytes"] == len(clip)


@pytest.mark.parametrize(
    "state",
    [
        {"status": "done", "video": {"url": "/files/v1.mp4"}},
        {"status": "succeed", "data": [{"url": "/files/v1.mp4"}]},
        {"status": "complete", "output": ["/files/v1.mp4"]},
        {"data": {"task_status": "SUCCEED", "task_result": {"videos": [{"url": "/files/v1.mp4"}]}}},
    ],
)
async def test_other_words_and_shapes_for_a_video_that_is_ready(
    server: AIServer, make: Make, clip: bytes, state: dict[str, Any]
) -> None:
    server.on(LOOK, answer(state))
    server.on("GET /files/v1.mp4", content(clip))
    assert (await make()(ai_job("video")))["bytes"] == len(clip)
    assert server.asked(CONTENT) == []


async def test_a_word_that_is_not_known_is_logged_once(
    server: AIServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    odd = video(f"frobnicating {KEY}")
    server.on(LOOK, odd, odd, video("done"), odd, video("done"))
    processor = make()
    await processor(ai_job("video"))
    await processor(ai_job("video"))
    assert caplog.text.count("status 'frobnicating ***' is not known") == 1
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("word", ["failure", "TASK_STATUS_FAILED", "errored"])
async def test_other_words_for_a_video_that_failed(server: AIServer, make: Make, word: str) -> None:
    server.on(LOOK, video(word, fail_reason="no bees"))
    with pytest.raises(AIFailed, match="the video failed: no bees"):
        await make()(ai_job("video"))


async def test_a_video_just_ordered_may_be_unknown_for_a_moment(server: AIServer, make: Make) -> None:
    missing = answer({"error": "no such video"}, 404)
    server.on(LOOK, missing, missing, video("completed"))
    await make()(ai_job("video"))
    assert len(server.asked(ORDER)) == 1


async def test_a_video_whose_file_is_gone_is_ordered_again(server: AIServer, make: Make) -> None:
    server.on(CONTENT, answer({"error": "expired"}, 410))
    job = ai_job("video")
    with pytest.raises(AIFailed, match="status 410: expired"):
        await make()(job)
    assert job.memory == {"video": None, "orders": 1}


async def test_a_sound_is_no_video(server: AIServer, make: Make, tmp_path: Path) -> None:
    sound = tmp_path / "sound.m4a"
    await asyncio.to_thread(ffmpeg, "-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", sound)
    server.on(CONTENT, content(await asyncio.to_thread(sound.read_bytes)))
    with pytest.raises(AIFailed, match="no picture in its video"):
        await make()(ai_job("video"))
    assert [*tree(tmp_path)] == ["sound.m4a"]


# --- In a queue -----------------------------------------------------------------------------


async def test_a_job_that_times_out_goes_on_with_its_video(
    server: AIServer, make: Make, make_queue: Callable[..., Queue], clip: bytes
) -> None:
    server.on(LOOK, send(hang_up=False), video("completed"))
    queue = make_queue("ai-generation")
    queue.process(make(ai_poll_interval_ms=1))
    job = await queue.enqueue(ai_job("video").data, timeout=1500, retries=20, backoff=("fixed", 10))
    result = await job.result(timeout=30_000)
    assert result["bytes"] == len(clip)
    assert result["path"] == f"{job.id}.mp4"
    assert len(server.asked(ORDER)) == 1


async def test_a_worker_that_closes_leaves_its_video_to_the_next(
    server: AIServer, make: Make, make_queue: Callable[..., Queue], clip: bytes
) -> None:
    server.on(LOOK, send(hang_up=False), video("completed"))
    leaving = make_queue("ai-generation")
    leaving.process(make(ai_poll_interval_ms=1))
    job = await leaving.enqueue(ai_job("video").data)
    await server.until_asked(LOOK)
    with contextlib.suppress(TimeoutError):
        await leaving.close(timeout=10)  # the job is handed back in the middle

    following = make_queue("ai-generation")
    following.process(make(ai_poll_interval_ms=1))
    found = await following.get_job(str(job.id))
    assert found is not None
    assert (await found.result(timeout=30_000))["bytes"] == len(clip)
    assert len(server.asked(ORDER)) == 1


WORKER = """\
import asyncio, pathlib, sys
from beeq import Queue
from beeq.processors.ai import AIProcessor
from beeq.processors.base import ProcessorSettings

async def main(redis_url, base_url, root):
    settings = ProcessorSettings(media_root=pathlib.Path(root), ai_base_url=base_url, ai_video_model="films",
                                 ai_poll_interval_ms=1)
    queue = Queue("ai-generation", redis=redis_url, stall_interval=300)
    queue.process(AIProcessor(settings))
    await queue.run()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_worker_that_is_killed_leaves_its_video_to_the_next(
    server: AIServer,
    make: Make,
    make_queue: Callable[..., Queue],
    valkey: Server,
    tmp_path: Path,
    clip: bytes,
) -> None:
    server.on(LOOK, send(hang_up=False), video("completed"))
    queue = make_queue("ai-generation", stall_interval=300)
    job = await queue.enqueue(ai_job("video").data)
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, valkey.url, server.url, str(tmp_path), cwd=ROOT
    )
    try:
        await server.until_asked(LOOK)
    finally:
        worker.kill()
        await worker.wait()
    assert tree(tmp_path) == {}

    queue.process(make(ai_poll_interval_ms=1))
    assert (await job.result(timeout=30_000))["bytes"] == len(clip)
    assert len(server.asked(ORDER)) == 1


async def test_a_record_and_its_traces_hold_no_key(
    server: AIServer, make: Make, make_queue: Callable[..., Queue]
) -> None:
    server.on(ORDER, reply(401, f'{{"error": {{"message": "bad key {KEY}"}}}}'.encode()))
    queue = make_queue("ai-generation")
    queue.process(make())
    job = await queue.enqueue(ai_job("video").data, retries=3)
    with pytest.raises(JobFailed, match=r"status 401: bad key \*\*\*") as failed:
        await job.result(timeout=30_000)
    found = await queue.get_job(str(job.id))
    assert found is not None
    assert "hunter2" not in f"{found.options} {whole_text_of(failed.value)}"
    assert len(server.requests) == 1
