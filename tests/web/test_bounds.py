"""What all clients together may cost: jobs that wait in Redis, bodies and jobs in this process's memory."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest

from beeq.web import bounds
from beeq.web.responses import Refusal
from tests.web.app import MINE, SCRIPT, WANTED, app_on, error_of, in_pieces, serving, then_silence

JSON = {"content-type": "application/json"}


def sized(size: int) -> bytes:
    """Return a request of about that many bytes."""
    return json.dumps({**WANTED, "parameters": {"pad": "x" * size}}).encode()


@pytest.fixture
async def bounded_client(valkey, prefix, monkeypatch):
    """A client of an application that holds few bytes."""
    monkeypatch.setattr(bounds, "MAX_HELD_BYTES", 300_000)
    async with serving(app_on(valkey.url, prefix)) as client:
        yield client


async def test_a_full_queue_takes_no_more_and_loses_nothing(valkey, prefix):
    async with serving(app_on(valkey.url, prefix, max_waiting=3)) as client:
        statuses = [(await client.post(SCRIPT, json=WANTED)).status_code for _ in range(3)]
        assert statuses == [200] * 3
        refused = await client.post(SCRIPT, json=WANTED)
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) > 0
        assert "BEEQ_MAX_WAITING" in error_of(refused)
        assert (await client.get("/v1/stats")).json()["ai-generation"]["waiting"] == 3


async def test_jobs_of_others_and_delayed_ones_count(valkey, prefix, make_queue):
    queue = make_queue("ai-generation", prefix=prefix, is_worker=False)
    await queue.enqueue({})
    await queue.enqueue({}, delay_until=2**42)
    async with serving(app_on(valkey.url, prefix, max_waiting=2)) as client:
        assert (await client.post(SCRIPT, json=WANTED)).status_code == 429


async def test_another_queues_jobs_do_not_count(valkey, prefix, make_queue):
    await make_queue("webhook-processing", prefix=prefix, is_worker=False).enqueue({})
    async with serving(app_on(valkey.url, prefix, max_waiting=1)) as client:
        assert (await client.post(SCRIPT, json=WANTED)).status_code == 200


async def test_who_asks_again_for_a_job_is_answered_also_when_full(valkey, prefix):
    async with serving(app_on(valkey.url, prefix, max_waiting=1)) as client:
        for _ in range(2):
            assert (await client.post(SCRIPT, json={**WANTED, "id": MINE})).status_code == 200
        assert (await client.post(SCRIPT, json=WANTED)).status_code == 429


async def test_fewer_large_jobs_may_wait(valkey, prefix):
    """A limit by number alone would let a mebibyte a job into Redis, ten thousand times."""
    async with serving(app_on(valkey.url, prefix, max_waiting=20)) as client:
        large = sized(1 << 19)
        statuses = [(await client.post(SCRIPT, content=large, headers=JSON)).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        small = [(await client.post(SCRIPT, json=WANTED)).status_code for _ in range(18)]
        assert small == [200] * 17 + [429]


@pytest.mark.parametrize(
    ("waiting", "max_waiting", "size", "is_taken"),
    [
        (0, 1, 1 << 20, True),
        (1, 1, 1, False),
        (9_999, 10_000, 1, True),
        (9_999, 10_000, 100 << 10, True),
        (10_000, 10_000, 0, False),
        (975, 10_000, 1 << 20, True),
        (976, 10_000, 1 << 20, False),
    ],
)
def test_a_queues_room(waiting, max_waiting, size, is_taken):
    expected = contextlib.nullcontext() if is_taken else pytest.raises(Refusal, match="Too many jobs wait")
    with expected:
        bounds.check_queue(waiting, max_waiting=max_waiting, size=size)


async def test_bodies_under_way_have_a_bound_together(bounded_client, eventually):
    client = bounded_client
    under_way = [
        asyncio.create_task(client.post(SCRIPT, content=then_silence([b" " * 140_000]), headers=JSON))
        for _ in range(2)
    ]

    async def is_refused() -> bool:
        answer = await client.post(SCRIPT, content=in_pieces(sized(50_000)), headers=JSON)
        return answer.status_code == 503 and "retry-after" in answer.headers

    await eventually(is_refused)
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)
    # What they held is free again.
    assert (await client.post(SCRIPT, content=sized(250_000), headers=JSON)).status_code == 200


async def test_refused_bodies_are_not_held(bounded_client):
    client = bounded_client
    for _ in range(5):
        assert (await client.post(SCRIPT, content=b"{" * 250_000, headers=JSON)).status_code == 400
        assert (await client.post("/nowhere", content=b" " * 900_000)).status_code == 404
        headers = {**JSON, "host": "evil.example"}
        assert (await client.post(SCRIPT, content=b" " * 900_000, headers=headers)).status_code == 403


async def test_many_large_requests_at_once_are_all_answered(client):
    answers = await asyncio.gather(
        *(client.post(SCRIPT, content=sized(300_000), headers=JSON) for _ in range(60))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert (await client.get("/v1/stats")).json()["ai-generation"]["waiting"] == 60


@pytest.mark.parametrize("length", ["5", "0"])
async def test_a_length_given_in_two_ways_is_refused(client, length):
    headers = {**JSON, "transfer-encoding": "chunked", "content-length": length}
    answer = await client.post(SCRIPT, content=sized(5), headers=headers)
    assert (answer.status_code, answer.headers["connection"]) == (400, "close")
