"""Answers that are made to be large or hard to read: bounded, read beside the loop, and named by their limit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beeq import Queue
from beeq.ai.bodies.answers import MAX_PARTS, JSONAnswer, TooManyParts, json_of
from beeq.ai.errors import AIFailed, AIRefused, AIUnusable
from beeq.ai.film.states import video_state
from beeq.ai.pictures import decoded
from beeq.ai.redaction import Redactor
from beeq.ai.responses import chat_text
from beeq.ai.writing.objects import object_of
from beeq.ai.writing.script import script
from beeq.ai.writing.thinking import answer_in
from beeq.errors import Discard
from beeq.processors.base import ProcessorSettings
from tests.ai.server import (
    CHAT,
    IMAGES,
    PNG,
    SCRIPT,
    AIServer,
    Make,
    ai_job,
    answer,
    chat,
    content,
    image,
    video,
)
from tests.support.server import Server

pytestmark = pytest.mark.external  # large answers take long

ROOT = Path(__file__).resolve().parents[2]
MB = 2**20


def scenes(count: int) -> str:
    """Return the text of a script of so many empty scenes."""
    return '{"title": "Bees", "scenes": [' + ",".join(["{}"] * count) + "]}"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("slip", ["//\n", "/**/", " ", "// ,\n", ", ", " ,/**/", "[", "/*"])
def test_a_megabyte_of_slips_is_read_at_once(slip: str) -> None:
    """It would take minutes, with the interpreter held, if each space were a beginning to look on from."""
    text = '{"title":"a","scenes":[{}]' + slip * (1_000_000 // len(slip)) + "}"
    assert object_of(text) in ({"title": "a", "scenes": [{}]}, None)


# Limits with a setting.


async def test_a_text_over_its_limit_fails_for_good_by_name(server: AIServer, make: Make) -> None:
    server.on(CHAT, chat("é" * 500_001))
    with pytest.raises(Discard, match=r"longer than 1000000 bytes \(BEEQ_AI_MAX_TEXT_BYTES\)"):
        await make()(ai_job("scene-description"))
    server.on(CHAT, chat("é" * 500_000))
    assert len((await make()(ai_job("scene-description")))["text"]) == 500_000


async def test_a_script_of_too_many_scenes_fails_for_good(server: AIServer, make: Make) -> None:
    server.on(CHAT, chat(scenes(1001)))
    with pytest.raises(Discard, match=r"more than 1000 scenes \(BEEQ_AI_MAX_SCENES\)"):
        await make()(ai_job("script"))
    server.on(CHAT, chat(scenes(1000)))
    assert len((await make()(ai_job("script")))["scenes"]) == 1000


async def test_the_limits_are_settings(server: AIServer, make: Make) -> None:
    for settings in ({"ai_max_text_bytes": 20}, {"ai_max_scenes": 1}):
        text = json.dumps(SCRIPT) if "ai_max_text_bytes" in settings else scenes(2)
        server.on(CHAT, chat(text))
        with pytest.raises(Discard, match="BEEQ_AI_MAX_"):
            await make(**settings)(ai_job("script"))


@pytest.mark.parametrize("variable", ["BEEQ_AI_MAX_TEXT_BYTES", "BEEQ_AI_MAX_SCENES"])
def test_a_limit_is_read_from_the_environment(variable: str, tmp_path: Path) -> None:
    environ = {"BEEQ_MEDIA_ROOT": str(tmp_path), variable: "7"}
    settings = ProcessorSettings.from_environment(environ)
    assert getattr(settings, variable.removeprefix("BEEQ_").lower()) == 7
    for bad in ("", "0", "-1", "1.5", "many", "9" * 5000):
        with pytest.raises(ValueError, match=f"{variable} must be a whole number of"):
            ProcessorSettings.from_environment(environ | {variable: bad})


async def test_a_text_of_half_characters_is_measured_and_kept(server: AIServer, make: Make) -> None:
    server.on(CHAT, chat("a\ud800b"))
    assert await make()(ai_job("scene-description")) == {"text": "a\ud800b"}


# The loop goes on.


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> dict[str, threading.Thread]:
    """In which thread each step of reading was last done."""
    found: dict[str, threading.Thread] = {}

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            found[name] = threading.current_thread()
            return function(*arguments)

        return call

    monkeypatch.setattr("beeq.ai.client.JSONAnswer.feed", watched("json", JSONAnswer.feed))
    monkeypatch.setattr("beeq.ai.generation.chat_text", watched("text", chat_text))
    return found


async def test_a_large_answer_is_read_beside_the_loop(
    server: AIServer, make: Make, threads: dict[str, threading.Thread]
) -> None:
    loops = threading.current_thread()
    server.on(CHAT, chat("x" * 100_000))
    await make()(ai_job("scene-description"))
    assert threads["json"] is not loops
    assert threads["text"] is not loops
    server.on(IMAGES, image(PNG + b"\0" * 100_000))
    await make()(ai_job("image"))
    assert threads["json"] is not loops


async def test_a_large_look_at_a_video_is_read_beside_the_loop(
    server: AIServer, make: Make, threads: dict[str, threading.Thread]
) -> None:
    server.on("POST /v1/videos", video("queued"))
    server.on("GET /v1/videos/v1", video("failed", error={"message": "no " * 100_000}))
    with pytest.raises(AIFailed, match="the video failed: no no"):
        await make()(ai_job("video"))
    assert threads["json"] is not threading.current_thread()


async def test_a_small_answer_needs_no_thread_to_be_parsed(
    server: AIServer, make: Make, threads: dict[str, threading.Thread]
) -> None:
    server.on(CHAT, chat("A meadow."))
    await make()(ai_job("scene-description"))
    assert threads["json"] is threading.current_thread()


# What is hard to read.

#: Texts of a megabyte that are no script; each took seconds, or grew with the square of its length.
HARD_TEXTS = {
    "scenes without a title": '{"scenes": [' + ",".join(["{}"] * 330_000) + "]}",
    "wrong scenes": '{"title": "t", "scenes": [' + ",".join(["1"] * 999) + "]}",
    "empty objects": "{}" * 500_000,
    "almost scripts": '{"title": "", "scenes": []}' * 37_000,
    "open objects": "{" * 1_000_000,
    "open texts": '{"' * 500_000,
    "thinking": "<think>" * 140_000,
    "ends of thinking": "</think>" * 125_000,
    "ends of answers": "<|end|>" * 140_000 + "{",
    "deep lists": '{"a": ' + "[" * 490_000 + "]" * 490_000 + "}",
    "a long number": '{"title": "t", "scenes": [{"d": ' + "9" * 900_000 + "}]}",
    "commas": '{"a": 1' + "," * 990_000 + "}",
    "comments": "{" + "/*" * 490_000 + "}",
    "quotes": "{" + '"\\"' * 330_000 + "}",
}


@pytest.mark.parametrize("text", HARD_TEXTS.values(), ids=HARD_TEXTS)
@pytest.mark.timeout(60)
def test_a_hard_text_is_no_script(text: str) -> None:
    with pytest.raises(AIFailed, match="no script"):
        script(text)


@pytest.mark.timeout(60)
def test_many_tags_at_an_answers_end_are_taken_away() -> None:
    assert answer_in("A meadow." + "<|end|> " * 120_000) == "A meadow."


def test_the_first_fault_of_a_script_ends_the_check() -> None:
    with pytest.raises(AIFailed, match=r"no script: scenes\[0\]: input should be a valid dictionary$"):
        script('{"title": "t", "scenes": [' + ",".join(["1"] * 999) + "]}")
    with pytest.raises(AIRefused, match="BEEQ_AI_MAX_SCENES"):
        script('{"title": "t", "scenes": [' + ",".join(["1"] * 300_000) + "]}")


def sse_of(event: bytes, count: int) -> bytes:
    return (b"data: " + event + b"\n\n") * count


MANY = b",".join([b"{}"] * (MAX_PARTS // 2 + 1))


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [' + MANY + b"]}",
        b"data: [" + MANY + b"]\n\n",
        b'{"a": 1}\n{"a": [' + MANY + b"]}\n",
        b"[" * (8 * MB),
    ],
)
def test_a_response_of_too_many_parts_is_not_read(body: bytes) -> None:
    with pytest.raises(TooManyParts):
        json_of(body)


@pytest.mark.parametrize(("beginning", "line"), [(b"data: {}\n", b"\n"), (b"", b"{}\n")])
def test_a_response_of_too_many_lines_is_not_read(
    monkeypatch: pytest.MonkeyPatch, beginning: bytes, line: bytes
) -> None:
    monkeypatch.setattr("beeq.ai.bodies.answers.MAX_LINES", 1000)
    assert json_of(beginning + line * 900) == {}
    with pytest.raises(TooManyParts, match="more than 1000 lines"):
        json_of(beginning + line * 1001)


def test_what_stands_in_texts_is_no_part() -> None:
    text = ',[{"\\' * 400_000
    assert json_of(json.dumps({"content": text}).encode()) == {"content": text}


async def test_too_many_parts_fail_the_attempt(server: AIServer, make: Make) -> None:
    server.on(CHAT, content(b'{"choices": [' + MANY + b"]}"))
    with pytest.raises(AIUnusable, match="more than 250000 parts"):
        await make()(ai_job("script"))


def test_a_stream_of_many_words_is_joined_in_linear_time() -> None:
    chunk = json.dumps({"choices": [{"index": 0, "delta": {"content": "bee "}}]}).encode()
    whole = json_of(sse_of(chunk, 50_000) + b"data: [DONE]\n\n")
    assert whole["choices"][0]["message"]["content"] == "bee " * 50_000


def test_a_picture_in_many_pieces_is_decoded_in_place() -> None:
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = "AA " * (16 * MB)
    assert len(decoded(text)) == 24 * MB
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    assert grown_kb < 400 * 1024  # a list of its pieces would take a gigabyte
    with pytest.raises(AIFailed, match="percent encoding"):
        decoded("data:image/png," + "%41" * 1_100_000)


def test_a_long_text_is_quoted_in_part_and_shows_no_secret() -> None:
    secret = "s3cret/of the-provider"
    redactor = Redactor([secret])
    for place in range(19_980, 20_001):
        quoted = redactor.quoted("x" * place + secret + "y" * 8_000_000)
        assert "s3c" not in quoted
        assert 19_000 < len(quoted) <= 20_000


@pytest.mark.parametrize(
    "response",
    [
        {"status": "aA" * 4_000_000, "state": "queued"},
        {"status": "queued", "progress": " " * 8_000_000},
        {"status": "queued", "progress": int("9" * 4300)},
        {"status": "queued", "data": [{}] * 100_000},
    ],
)
def test_an_odd_state_of_a_video_is_read_at_once(response: Any) -> None:
    assert video_state(response, str).stage.value == "working"


@pytest.mark.parametrize("delay", ["9" * 5000, "1e308", "-1", "9" * 5000 + ".5", "\xb2", "1e", "NaN", "inf"])
async def test_an_odd_delay_of_the_provider_is_bounded(server: AIServer, make: Make, delay: str) -> None:
    for name in ("retry_after", "retry_after_ms"):
        server.on(CHAT, answer({"error": "busy"}, 503, **{name: delay}))
        with pytest.raises(Exception, match="status 503: busy") as failed:
            await make()(ai_job("script"))
        after_ms = getattr(failed.value, "after", None) or getattr(failed.value, "retry_after_ms", None) or 0
        assert 0 <= after_ms <= 24 * 3600 * 1000


# A running worker.


@pytest.fixture
def prefix(valkey: Server) -> Iterator[str]:
    """A prefix for built-in queues of the test's own."""
    name = f"answers{os.getpid()}"
    yield name
    with valkey.sync_client() as redis:
        redis.delete(*redis.scan_iter(f"{name}:*"))


def peak_kb_of(pid: int) -> int:
    """Return the most memory that a process has had; 0 if it is gone. (``ru_maxrss`` counts its parent's, too.)"""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
    return 0


async def test_a_worker_outlasts_an_answer_of_8_megabytes(
    server: AIServer, valkey: Server, prefix: str, tmp_path: Path
) -> None:
    server.on(CHAT, chat(scenes(2_600_000)))
    async with Queue("ai-generation", redis=valkey.url, prefix=prefix) as queue:
        job = await queue.enqueue({"type": "script", "prompt": "bees"}, retries=3)
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "beeq_cli", "worker", "ai-generation", "--burst", "-p", prefix),
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "cli"))),
                "BEEQ_REDIS_URL": valkey.url,
                "BEEQ_AI_BASE_URL": server.url,
                "BEEQ_AI_TEXT_MODEL": "texts",
            },
            stderr=asyncio.subprocess.PIPE,
        )
        said = asyncio.ensure_future(worker.communicate())
        peak_kb = 0
        while not (await asyncio.wait([said], timeout=0.02))[0]:
            peak_kb = max(peak_kb, peak_kb_of(worker.pid))
        log = (await said)[1].decode()
        assert worker.returncode == 0
        (line,) = [line for line in log.splitlines() if f"job {job.id}: " in line]
        assert line.endswith("the model's text is longer than 1000000 bytes (BEEQ_AI_MAX_TEXT_BYTES)")
        assert len(server.asked(CHAT)) == 1
        assert 0 < peak_kb < 400 * 1024
