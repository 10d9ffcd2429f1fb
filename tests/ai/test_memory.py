"""What responses take of the memory and of the loop: bounded by their limits, not by what a provider sends."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from beeq.ai.bodies.answers import MAX_PARTS, JSONAnswer, TextTooLong, TooLong, TooManyParts, json_of
from beeq.ai.bodies.gate import ByteGate
from beeq.ai.bodies.long_strings import LONG_BYTES, StringCutter, TooManyStrings
from beeq.ai.bodies.unpacking import FREE_BYTES, STEP_BYTES, Unpacking, UnpacksTooFar
from beeq.ai.client import Limits
from beeq.ai.errors import AIFailed, AIUnusable
from beeq.ai.pictures import decoded_pieces
from beeq.errors import Discard
from beeq.process import call_in_thread
from tests.ai.server import CHAT, HEAD, IMAGES, PNG, AIServer, Make, ai_job, answer, content, image, video
from tests.media.clips import tree
from tests.webhooks.receiver import Script, send_for_ever

pytestmark = pytest.mark.external  # large answers take long

ROOT = Path(__file__).resolve().parents[2]
MB = 2**20
#: An emoji makes each character of a text take four bytes, and many digits a text be read the exact way.
WIDE = "😀" + "0" * 20
#: The beginning of a film.
FILM = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


def in_pieces(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


# --- Long strings ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 65_536, 262_144, 10**9])
def test_long_strings_are_cut_out_wherever_pieces_end(size: int) -> None:
    texts = ["", "short", "a\\/b" * 40_000, '\\"' * 50_000, "\\u002b" * 20_000, "x" * LONG_BYTES, "last"]
    body = ('{"all": [' + ", ".join(f'"{text}"' for text in texts) + "]}").encode()
    cutter, kept, cut = StringCutter(), b"", b""
    for piece in in_pieces(body, size):
        kept += cutter.feed(piece)
        cut, cutter.cut = cut + b"".join(cutter.cut), []
    kept += cutter.rest()
    found = []
    for name in json.loads(kept)["all"]:
        begin, length = cutter.places.get(name, (0, 0))
        found.append(cut[begin : begin + length].decode() if name in cutter.places else name)
    assert found == texts
    assert len(cutter.places) == 3


@pytest.mark.parametrize(
    "body", [b'"' + b"x" * 99, b'{"a": "b\n', b'"\\', b'x"y\r\n"z', b': a "quoted" b\n"']
)
def test_a_broken_string_stays_as_it_is(body: bytes) -> None:
    for size in (1, 2, 1000):
        cutter = StringCutter()
        assert b"".join([*map(cutter.feed, in_pieces(body, size)), cutter.rest()]) == body
        assert not cutter.places


def test_a_picture_response_of_too_many_texts_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beeq.ai.bodies.long_strings.MAX_STRINGS", 1000)
    StringCutter().feed(b'"",' * 1000)
    with pytest.raises(TooManyStrings):
        StringCutter().feed(b'"",' * 1001)


PICTURE = PNG + os.urandom(300_000)
PLAIN = base64.b64encode(PICTURE).decode()
#: The same, small enough to be cut into pieces of one byte.
SMALL_PICTURE = PICTURE[:3000]


def plain(picture: bytes) -> str:
    return base64.b64encode(picture).decode()


def in_lines(text: str) -> str:
    return "\\r\\n".join(text[start : start + 76] for start in range(0, len(text), 76)) + "\\n"


#: How providers write a picture, as JSON has it.
WRITTEN: dict[str, Callable[[bytes], str]] = {
    "plain": plain,
    "without padding": lambda picture: plain(picture).rstrip("="),
    "of URLs": lambda picture: base64.urlsafe_b64encode(picture).decode(),
    "in lines": lambda picture: in_lines(plain(picture)),
    "with escaped slashes": lambda picture: plain(picture).replace("/", "\\/"),
    "in escapes": lambda picture: (
        plain(picture).replace("+", "\\u002B").replace("/", "\\u002f").replace("=", "\\u003D")
    ),
    "a data URL": lambda picture: f"data:image/png;base64,{plain(picture)}",
    "an escaped data URL": lambda picture: f"data:image\\/png;base64,\\n{plain(picture)}",
    "in percent encoding": lambda picture: (
        "data:;base64," + plain(picture).replace("+", "%2B").replace("/", "%2f")
    ),
    "all in percent encoding": lambda picture: (
        "data:image/png," + "".join(f"%{byte:02x}" for byte in picture)
    ),
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
async def test_a_large_picture_is_read_in_every_form(
    server: AIServer, make: Make, tmp_path: Path, written: Callable[[bytes], str]
) -> None:
    server.on(IMAGES, content(f'{{"data": [{{"b64_json": "{written(PICTURE)}"}}]}}'.encode()))
    result = await make()(ai_job("image"))
    assert tree(tmp_path) == {result["path"]: PICTURE}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_a_picture_is_decoded_wherever_its_pieces_end(written: Callable[[bytes], str]) -> None:
    text = written(SMALL_PICTURE).encode()
    for size in (1, 2, 3, 7, 100, 4096):
        assert b"".join(decoded_pieces(in_pieces(text, size))) == SMALL_PICTURE


async def test_the_last_large_picture_of_a_stream_counts(
    server: AIServer, make: Make, tmp_path: Path
) -> None:
    draft = base64.b64encode(PNG + b"draft" * 50_000).decode()
    events = [{"b64_json": draft}, {"b64_json": PLAIN, "usage": {"total_tokens": 7}}]
    lines = [f": keep-alive\r\ndata: {json.dumps(event)}\r\n\r\n" for event in events]
    server.on(IMAGES, content("".join(lines).encode(), content_type="text/event-stream"))
    result = await make()(ai_job("image"))
    assert tree(tmp_path) == {result["path"]: PICTURE}


@pytest.mark.parametrize("end", ["?", "====", "=A", "é", "\\\\", '\\"', "A" * 3 + "=" * 5 + "A"])
async def test_a_large_picture_that_is_not_base64_leaves_no_file(
    server: AIServer, make: Make, tmp_path: Path, end: str
) -> None:
    written = PLAIN.rstrip("=") + "A" * (-len(PLAIN.rstrip("=")) % 4) + end
    server.on(IMAGES, content(f'{{"data": [{{"b64_json": "{written}"}}]}}'.encode()))
    if end == "====":  # padding too much is forgiven
        assert (await make()(ai_job("image")))["bytes"] >= len(PICTURE)
        return
    job = ai_job("image")
    with pytest.raises(AIFailed, match="not base64"):
        await make()(job)
    assert tree(tmp_path) == {}
    assert job.memory["orders"] == 1  # the same idempotency key would get the same picture


async def test_a_large_picture_over_its_limit_leaves_no_file(
    server: AIServer, make: Make, tmp_path: Path
) -> None:
    server.on(IMAGES, image(PICTURE))
    with pytest.raises(AIFailed, match="picture is longer than 200000 bytes"):
        await make(Limits(image_bytes=200_000))(ai_job("image"))
    assert tree(tmp_path) == {}


# --- Reading as it comes --------------------------------------------------------------------


def traced_peak_of(work: Callable[[], Any]) -> int:
    """Return the most memory that Python had in use more than before."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_picture_in_a_response_takes_no_memory() -> None:
    def read() -> None:
        cutter = StringCutter()
        reading = JSONAnswer(8 * MB, cutter=cutter)
        reading.feed(b'{"data": [{"b64_json": "')
        for _ in range(400):
            reading.feed(b"A" * STEP_BYTES)
            cutter.cut.clear()
        reading.feed(b'"}]}')
        assert list(cutter.places) == [reading.value()["data"][0]["b64_json"]]

    assert traced_peak_of(read) < 4 * MB


def test_of_a_stream_only_the_text_takes_memory() -> None:
    event = {"id": "x" * 200, "choices": [{"index": 0, "delta": {"content": WIDE, "thinking": "y" * 200}}]}
    events = f"data: {json.dumps(event)}\n\n".encode() * 300

    def read() -> None:
        reading = JSONAnswer(MB, max_text_bytes=MB)
        for _ in range(30):
            reading.feed(events)
        reading.feed(b"data: [DONE]\n\n")
        assert reading.value()["choices"][0]["message"]["content"] == WIDE * 9000

    assert len(events) * 30 > 4 * MB
    assert traced_peak_of(read) < 5 * MB  # it is 3, and would be 7 and more with the events


@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n"])
def test_a_stream_is_read_wherever_its_pieces_end(size: int, newline: str) -> None:
    events = ['{"choices": [{"delta": {"content": "a"}}]}', '{"choices": [', '{"delta": {"content": "b"}}]}']
    lines = ["\ufeff: hello", f"data: {events[0]}", "", f"data:{events[1]}", f"data: {events[2]}", "id: 1"]
    body = newline.join([*lines, "", "data: [DONE]"]).encode()
    reading = JSONAnswer()
    for piece in in_pieces(body, size):
        reading.feed(piece)
    assert reading.value()["choices"][0]["message"]["content"] == "ab"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'\r\n {"a":\r\n 1}\r\n', {"a": 1}),
        (b'{"a": 1}\n', {"a": 1}),
        (b'{"a": 1}\r', {"a": 1}),
        (b'{\n"a": 1\n}', {"a": 1}),
        (b"[\n1]", [1]),
        (b"7", 7),
        (b'{"n": 1}\n\n{"n": 2}\n', {"n": 2}),
        (b'data: {"error": "no"}\n\ndata: {broken\n\n', {"error": "no"}),
    ],
)
def test_a_value_is_read_wherever_its_pieces_end(body: bytes, value: Any) -> None:
    for size in (1, 3, 1000):
        reading = JSONAnswer()
        for piece in in_pieces(body, size):
            reading.feed(piece)
        assert reading.value() == value


def test_a_value_over_its_limit_is_not_parsed() -> None:
    for beginning in (b'{"a": "', b'data: {"a": "', b'{"a": 1}\n{"a": "', b"[", b"7"):
        reading = JSONAnswer(1000)
        for piece in (beginning, b"x" * (1000 - len(beginning))):
            reading.feed(piece)
        with pytest.raises(TooLong):
            reading.feed(b"x" * 100)


def test_a_text_over_its_limit_ends_the_stream() -> None:
    reading = JSONAnswer(MB, max_text_bytes=10)
    event = '{"choices": [{"delta": {"content": "ééé"}}]}'
    reading.feed(f"data: {event}\n\n".encode())
    with pytest.raises(TextTooLong):
        reading.feed(f"data: {event}\n\n".encode())


async def test_a_stream_without_an_end_ends_with_its_text(server: AIServer, make: Make) -> None:
    event = b'data: {"choices": [{"delta": {"content": "bee bee bee bee "}}]}\n\n'
    server.on(CHAT, send_for_ever(HEAD + b"\r\n", event * 100))
    with pytest.raises(Discard, match="longer than 1000 bytes"):
        await make(ai_max_text_bytes=1000)(ai_job("script"))
    await server.until_open(0)


def test_many_quotes_in_a_text_without_an_end_are_read_once() -> None:
    body = b'{"a": [' + b"0," * (MAX_PARTS + 1) + b'"' + b'\\"' * 3_000_000
    with pytest.raises(TooManyParts):
        json_of(body)


# --- Packed bodies --------------------------------------------------------------------------


def test_a_packed_body_is_bounded_by_what_was_received() -> None:
    bomb = gzip.compress(b"\0" * 32 * MB)
    sizes: list[int] = []
    with pytest.raises(UnpacksTooFar):
        sizes.extend(map(len, Unpacking("", 10**9, most_times=16).pieces(bomb)))
    assert max(sizes) == STEP_BYTES
    assert sum(sizes) <= FREE_BYTES + 16 * len(bomb) < 2 * MB


def test_a_packed_body_comes_out_to_the_last_byte() -> None:
    for size in (STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 3 * STEP_BYTES):
        unpacking = Unpacking("", 10**9)
        packed = gzip.compress(b"\0" * size)
        assert (
            sum(len(found) for piece in (packed[:-9], packed[-9:]) for found in unpacking.pieces(piece))
            == size
        )
        assert unpacking.rest() == b""


@pytest.mark.parametrize("kind", ["script", "image", "fetched image", "video"])
async def test_a_packed_bomb_fails_the_attempt_once(server: AIServer, make: Make, kind: str) -> None:
    begin = FILM if kind == "video" else PNG
    bomb = content(gzip.compress(begin + b"\0" * 20 * MB) * 2, content_encoding="gzip")
    server.on(CHAT, bomb)
    server.on(IMAGES, answer({"data": [{"url": "/a.png"}]}) if kind == "fetched image" else bomb)
    server.on("GET /a.png", bomb)
    server.on("POST /v1/videos", video("completed"))
    server.on("GET /v1/videos/v1/content", bomb)
    with pytest.raises(AIUnusable, match="times its size|longer than"):
        await make()(ai_job(kind.removeprefix("fetched ")))
    assert len(server.requests) == (1 if kind in ("script", "image") else 2)


async def test_a_file_in_small_chunks_is_given_up(server: AIServer, make: Make) -> None:
    server.on("POST /v1/videos", video("completed"))
    begin = b"%x\r\n%b\r\n" % (len(FILM), FILM)
    part = b"81\r\n" + b"\0" * 129 + b"\r\n"
    server.on("GET /v1/videos/v1/content", send_for_ever(CHUNKED + begin, part * 1000))
    began_s = time.process_time()
    with pytest.raises(AIUnusable, match="too many small pieces"):
        await make()(ai_job("video"))
    assert time.process_time() - began_s < 20


# --- Only so much at once -------------------------------------------------------------------


@pytest.fixture
def lock() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


async def test_only_so_many_bytes_are_read_at_once(lock: threading.Event) -> None:
    gate = ByteGate(MB)
    running: list[int] = []
    two_run = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read(size: int) -> int:
        running.append(size)
        if len(running) == 2:
            loop.call_soon_threadsafe(two_run.set)
        lock.wait(60)
        return size

    sizes = [400_000, 600_000, 500_000, 5 * MB, 70_000]
    calls = [asyncio.ensure_future(gate.call(size, partial(read, size))) for size in sizes]
    await two_run.wait()
    assert await gate.call(10, lambda: "few") == "few"  # at once, here
    assert sorted(running) == [400_000, 600_000]
    lock.set()
    assert await asyncio.gather(*calls) == sizes
    assert running[3:] == [5 * MB, 70_000]


async def test_a_cancelled_reader_holds_its_place_to_the_end(lock: threading.Event) -> None:
    gate = ByteGate(MB)
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read() -> None:
        loop.call_soon_threadsafe(begun.set)
        lock.wait(60)

    first = asyncio.ensure_future(gate.call(MB, read))
    await begun.wait()
    waiting = [asyncio.ensure_future(gate.call(MB, partial(int, at))) for at in range(3)]
    await asyncio.sleep(0)
    for cancelled in (first, waiting[0]):
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
    assert not waiting[1].done()
    lock.set()
    assert await asyncio.gather(*waiting[1:]) == [1, 2]


async def test_an_error_in_a_thread_keeps_nothing_alive() -> None:
    class Large:
        pass

    def read() -> None:
        large = Large()
        alive.append(weakref.ref(large))
        raise ValueError

    alive: list[weakref.ref[Large]] = []
    gc.disable()
    try:
        for call in (lambda: call_in_thread(read), lambda: ByteGate(MB).call(MB, read)):
            with pytest.raises(ValueError):  # noqa: PT011 - it has no words
                await call()
        for thread in threading.enumerate():
            if thread.name == "beeq-call":
                thread.join(30)  # it may have delivered its error, and not have released it yet
        await asyncio.sleep(0)
        assert [found() for found in alive] == [None, None]
    finally:
        gc.enable()


# --- A whole process ------------------------------------------------------------------------

#: Runs four jobs of a kind at once; prints what they took of the memory, in kB, and how they ended.
FOUR_JOBS = """
import asyncio, sys
from pathlib import Path
from beeq.ai.client import Limits
from beeq.processors.ai import AIProcessor
from beeq.processors.base import ProcessorSettings
from tests.ai.server import PNG, ai_job

def peak_kb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

async def main(url, root, kind):
    settings = ProcessorSettings(
        media_root=Path(root), ai_base_url=url, ai_text_model="t", ai_image_model="i"
    )
    processor = AIProcessor(settings, limits=Limits(image_bytes=14 * 2**20))
    jobs = [ai_job(kind) for _ in range(4)]
    for at, job in enumerate(jobs):
        job.id = f"job{at}"
    before_kb = peak_kb()
    ends = await asyncio.gather(*map(processor, jobs), return_exceptions=True)
    print(peak_kb() - before_kb, *{str(end)[-60:] for end in ends}, sep="\\n")
    await processor.close()

asyncio.run(main(*sys.argv[1:]))
"""


def sent(beginning: str, length: int, end: str) -> Script:
    """Return a script that answers with a long body, which is never whole in memory."""

    async def play(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = len(beginning.encode()) + length + len(end)
        writer.write(HEAD + b"content-length: %d\r\n\r\n%b" % (size, beginning.encode()))
        for _ in range(length // MB):
            writer.write(b"A" * MB)
            await writer.drain()
        writer.write(end.encode())
        await writer.drain()

    return play


#: The most that four jobs may take, in MB. With pictures they take 12, a third of it. The four pictures' bytes,
#: held once, are 64, and one picture held as a text with an emoji is as much by itself.
PICTURES_MB = 40
#: With texts they take 240, of which one job took from 400 to 1600.
TEXTS_MB = 300
#: A kind of job, what comes, and how the jobs end.
LARGE = {
    "a picture": (
        "image",
        sent(f'{{"x": "{WIDE}", "data": [{{"b64_json": "iVBORw0KGgo', 16 * MB, '"}]}'),
        "'bytes': ",
    ),
    "a streamed picture": (
        "image",
        sent(f'data: {{"x": "{WIDE}", "b64_json": "iVBORw0KGgo', 20 * MB, '"}\n\n'),
        "longer than 14680064 bytes",
    ),
    "a picture that is a text": (
        "image",
        sent(f'data: {{"b64_json": "{WIDE}', 16 * MB, '"}\n\n'),
        "is not base64",
    ),
    "a text": (
        "script",
        sent(f'{{"choices": [{{"message": {{"content": "{WIDE}', 7 * MB, '"}}]}'),
        "BEEQ_AI_MAX_TEXT_BYTES)",
    ),
    "a streamed text": (
        "script",
        sent(f'data: {{"choices": [{{"message": {{"content": "{WIDE}', 60 * MB, '"}}]}\n\n'),
        "longer than 8097152 bytes",
    ),
}


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("kind", "script", "end"),
    [pytest.param(*case, id=name) for name, case in LARGE.items()],
)
async def test_four_large_answers_at_once_leave_a_process_small(
    server: AIServer, tmp_path: Path, kind: str, script: Script, end: str
) -> None:
    server.on(CHAT, script)
    server.on(IMAGES, script)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", FOUR_JOBS, server.url, str(tmp_path), kind),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    said, _ = await process.communicate()
    grown_kb, *ends = said.decode().splitlines()
    assert all(end in found for found in ends), ends
    assert int(grown_kb) < 1024 * (PICTURES_MB if kind == "image" else TEXTS_MB)
