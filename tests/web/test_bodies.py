"""Bad bodies for the HTTP API: wrong, too large, too slow, too deep, or without an end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from itertools import repeat

import pytest

from beeq.web import bodies
from tests.support.waiting import pause
from tests.web.app import (
    MINE,
    SCRIPT,
    WANTED,
    app_on,
    client_of,
    error_of,
    in_pieces,
    then_silence,
)

JSON = {"content-type": "application/json"}
MIB = 1 << 20


def padded(size: int) -> bytes:
    """Return a request that is fine, of exactly that many bytes."""
    empty = json.dumps({**WANTED, "pad": ""}).encode()
    return empty.replace(b'"pad": ""', b'"pad": "%s"' % (b"x" * (size - len(empty))))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"nope",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b'{"a": "\x00"}',
        b'{"a": 1} {"b": 2}',
        b'{"a": 1,}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    ],
    ids=lambda content: f"{content[:12]!r}",
)
async def test_what_is_no_json_is_answered_with_400(client, content):
    answer = await client.post(SCRIPT, content=content, headers=JSON)
    assert answer.status_code == 400
    assert error_of(answer) == "The body is not JSON"


@pytest.mark.parametrize("content", [b"null", b"1", b'"text"', b"true", b"[]", b"[{}]"])
async def test_what_is_no_object_is_answered_with_400(client, content):
    answer = await client.post(SCRIPT, content=content, headers=JSON)
    assert answer.status_code == 400
    assert error_of(answer) == "The body must be a JSON object"


@pytest.mark.parametrize("value", [b"1e999", b"[-1e999]", b'{"b":[1,1e400]}'])
async def test_a_number_beyond_all_bounds_is_refused(client, value):
    """It would be kept as null."""
    content = b'{"projectId":1,"userId":1,"parameters":{"a":%s}}' % value
    answer = await client.post(SCRIPT, content=content, headers=JSON)
    assert (answer.status_code, error_of(answer)) == (400, "The body holds a number that is too large")


@pytest.mark.parametrize("kind", ["[]", "{}"])
async def test_depth_has_a_bound_and_up_to_it_all_is_kept(client, kind):
    def nested(depth: int) -> bytes:
        opening, closing = (b"[", b"]") if kind == "[]" else (b'{"a":', b"}")
        value = opening * depth + b"1" + closing * depth
        return b'{"projectId":1,"userId":1,"id":"%s","parameters":{"a":%s}}' % (MINE.encode(), value)

    for depth in (99, 300, 900, 5000):
        answer = await client.post(SCRIPT, content=nested(depth), headers=JSON)
        assert answer.status_code == 400
        assert error_of(answer) in ("The body is nested deeper than 100 levels", "The body is not JSON")
    assert (await client.post(SCRIPT, content=nested(98), headers=JSON)).status_code == 200
    kept = (await client.get(f"/v1/jobs/{MINE}/status")).json()["jobData"]["parameters"]
    assert kept == json.loads(nested(98))["parameters"]


@pytest.mark.parametrize("entry", [b"[]", b"{}", b"0", b'""'])
async def test_values_have_a_bound_and_up_to_it_all_are_kept(client, entry):
    """Empty lists by the hundred thousand kept the loop busy for a second."""

    def holding(count: int) -> bytes:
        entries = b",".join([entry] * count)
        return b'{"projectId":1,"userId":1,"parameters":{"a":[%s]}}' % entries

    for count in (bodies.MAX_VALUES, 340_000):
        answer = await client.post(SCRIPT, content=holding(count), headers=JSON)
        assert answer.status_code == 400
        assert error_of(answer) == "The body holds more than 50000 values"
    most = holding(bodies.MAX_VALUES - 4)
    job_id = (await client.post(SCRIPT, content=most, headers=JSON)).json()["jobId"]
    kept = (await client.get(f"/v1/jobs/{job_id}/status")).json()["jobData"]["parameters"]
    assert kept == json.loads(most)["parameters"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/jsonp"},
        {"content-type": "text/plain; application/json"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
    ids=str,
)
async def test_what_is_not_said_to_be_plain_json_is_answered_with_415(client, headers):
    answer = await client.post(SCRIPT, content=json.dumps(WANTED), headers=headers)
    assert answer.status_code == 415
    assert error_of(answer).startswith("The body must")


async def test_two_types_are_none(client):
    headers = [("content-type", "application/json"), ("content-type", "text/plain")]
    assert (await client.post(SCRIPT, content=json.dumps(WANTED), headers=headers)).status_code == 415


# Size.


async def test_a_mebibyte_is_taken_and_a_byte_more_is_not(client):
    assert (await client.post(SCRIPT, content=padded(MIB), headers=JSON)).status_code == 200
    answer = await client.post(SCRIPT, content=padded(MIB + 1), headers=JSON)
    assert answer.status_code == 413
    assert error_of(answer) == "The body is larger than 1048576 bytes"


async def test_size_is_counted_where_nobody_says_it(client):
    half = padded(MIB)[: MIB // 2]
    answer = await client.post(SCRIPT, content=in_pieces(half, padded(MIB)[MIB // 2 :]), headers=JSON)
    assert answer.status_code == 200
    answer = await client.post(SCRIPT, content=in_pieces(half, half, b"}"), headers=JSON)
    assert answer.status_code == 413


@pytest.mark.parametrize("said", ["0", "5", "-1", "much", "1e3", "٣"])
async def test_size_is_counted_where_somebody_lies_about_it(client, said):
    async def post(content):
        headers = {**JSON, "content-length": said.encode()}
        return await client.post(SCRIPT, content=in_pieces(content), headers=headers)

    assert (await post(padded(2 * MIB))).status_code == 413
    assert (await post(padded(500))).status_code == 200


@pytest.mark.parametrize("said", [str(MIB + 1), "9" * 30])
async def test_a_size_that_is_said_to_be_too_large_is_believed(client, said):
    answer = await client.post(SCRIPT, content=in_pieces(b"{}"), headers={**JSON, "content-length": said})
    assert answer.status_code == 413


async def test_a_body_too_large_is_read_so_its_sender_gets_the_answer(client):
    sent = []

    async def body():
        for _ in range(40):
            sent.append(100_000)
            yield b" " * 100_000

    answer = await client.post(SCRIPT, content=body(), headers=JSON)
    assert answer.status_code == 413
    assert sum(sent) == 4_000_000
    assert "connection" not in answer.headers


@pytest.mark.parametrize("path", [SCRIPT, "/nowhere", "/health"])
async def test_a_body_without_an_end_is_cut_off(client, path):
    sent = 0

    async def body():
        nonlocal sent
        for piece in repeat(b" " * 65_536):
            sent += len(piece)
            yield piece

    answer = await client.post(path, content=body(), headers=JSON)
    assert answer.status_code in (404, 405, 413)
    assert answer.headers["connection"] == "close"
    assert MIB < sent <= 18 * MIB


@pytest.mark.parametrize("path", [SCRIPT, "/nowhere", "/health"])
@pytest.mark.parametrize("piece", [b" ", b""], ids=["one byte", "nothing"])
async def test_a_body_of_endless_small_pieces_is_cut_off(client, path, piece):
    """Of pieces without a byte nothing else is counted."""
    sent = 0

    async def body():
        nonlocal sent
        for _ in range(15 * bodies.MAX_PIECES // 10):
            sent += 1
            yield piece

    answer = await client.post(path, content=body(), headers=JSON)
    assert answer.status_code in (404, 405, 413)
    assert answer.headers["connection"] == "close"
    assert sent <= bodies.MAX_PIECES + 2


async def test_a_client_that_expects_a_go_ahead_is_answered_first(client):
    async def body():
        raise AssertionError("nobody asked for the body")
        yield b""

    headers = {**JSON, "content-length": str(2 * MIB), "expect": "100-continue"}
    answer = await client.post(SCRIPT, content=body(), headers=headers)
    assert (answer.status_code, answer.headers["connection"]) == (413, "close")


# Time.


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> float:
    monkeypatch.setattr(bodies, "READ_TIMEOUT_S", 0.3)
    monkeypatch.setattr(bodies, "MAX_PIECES", 1 << 60)  # time is all that ends a body
    return 0.3


async def _dribble() -> AsyncIterator[bytes]:
    for piece in repeat(b" "):
        await pause(0.01)
        yield piece


async def _nothing() -> AsyncIterator[bytes]:
    for piece in repeat(b""):
        yield piece


@pytest.mark.parametrize(
    "body",
    [
        lambda: then_silence([b"{"]),
        lambda: then_silence([]),
        _dribble,
        _nothing,
    ],
    ids=["stops", "never begins", "dribbles", "sends nothing, but a lot of it"],
)
async def test_a_body_that_does_not_come_in_time_is_answered_with_408(client, hasty, body):
    began = time.monotonic()
    answer = await client.post(SCRIPT, content=body(), headers=JSON)
    assert answer.status_code == 408
    assert error_of(answer) == "The body did not come in time"
    assert answer.headers["connection"] == "close"
    assert hasty <= time.monotonic() - began < 5


async def test_an_unwanted_body_does_not_delay_its_answer(client, hasty):
    began = time.monotonic()
    answer = await client.post("/nowhere", content=then_silence([b"x"]))
    assert (answer.status_code, answer.headers["connection"]) == (404, "close")
    assert time.monotonic() - began < 5


async def test_slow_bodies_keep_nobody_else_waiting(client, hasty):
    slow = [
        asyncio.create_task(client.post(SCRIPT, content=then_silence([b"{"]), headers=JSON))
        for _ in range(50)
    ]
    answer = await client.post(SCRIPT, json=WANTED)
    assert answer.status_code == 200
    assert not any(task.done() for task in slow)
    assert {answer.status_code for answer in await asyncio.gather(*slow)} == {408}


async def test_a_client_that_goes_away_is_no_error(valkey, prefix, caplog):
    app = app_on(valkey.url, prefix)
    said = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        said.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": SCRIPT,
        "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
        "client": ("127.0.0.1", 50_000),
        "http_version": "1.1",
        "query_string": b"",
    }
    async with app.running(), client_of(app) as client:
        await app(scope, receive, send)
        assert (await client.get("/v1/stats")).json()["ai-generation"]["waiting"] == 0
    assert said[0]["status"] == 400
    assert caplog.records == []
