"""Three hundred odd payloads, results, errors and progress values, while a Node process listens to all of it.

bee-queue parses what it hears without a guard: one message that is not JSON ends every Node process of the
queue. So: the listener lives, and it read exactly what ``JSON.parse`` makes of our bytes.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio

from beeq import Job, JobFailed, Queue
from beeq.protocol.codec import loads
from tests.support.node_bee import NodeBee
from tests.support.server import Server

MakeQueue = Callable[..., Queue]
MakeNode = Callable[..., Awaitable[NodeBee]]

COUNT = 300

_DEEP: Any = []
for _ in range(200):
    _DEEP = {"d": [_DEEP]}

ODD: list[Any] = [
    *("\ud800", "\udfff", "a\ud83db", "\ud83d\ude00", "\ude00\ud83d", "😀" * 50, {"\ud834": "\udd1e"}),
    *(
        2**53 - 1,
        2**53,
        2**53 + 1,
        -(2**53) - 1,
        2**63 - 1,
        2**63,
        2**64,
        10**30,
        -(10**300),
        [10**21, 10**400],
    ),
    *(
        math.nan,
        math.inf,
        -math.inf,
        [math.nan, {"x": -math.inf}],
        -0.0,
        0.0,
        5.0,
        1e16,
        1e21,
        1e-7,
        5e-324,
        1.7976931348623157e308,
    ),
    *(
        "\x00",
        "\x01\x1f\x7f\x80\x9f",
        "\b\t\n\f\r\v",
        '"\\/',
        "\u2028\u2029",
        "\ufeff\ufffe\uffff",
        "\u202ereversed",
    ),
    *(
        "",
        " ",
        "0",
        "null",
        "NaN",
        "undefined",
        "[object Object]",
        "</script>",
        "' OR 1=1",
        "${x}",
        "%s%n",
        "\\u0000",
    ),
    *(None, True, False, 0, -1, [], {}, [[]], [None], [[], {}, ""], {"": ""}, {" ": {"": []}}),
    *(
        {"__proto__": {"polluted": True}},
        {"constructor": {"prototype": 1}},
        {"toString": 1, "hasOwnProperty": 2},
    ),
    *(
        {"toJSON": "no function"},
        {"length": -1},
        {"then": 1},
        {"2": "b", "1": "a", "x": 0},
        {"message": "m", "stack": "s"},
    ),
    *({"event": "error", "id": None, "data": 1}, {"id": 1, "event": "job failed"}, {"a": {"$ref": "#"}}),
    *("x" * 100_000, ["y" * 1000] * 100, list(range(2000)), {str(n): n for n in range(1000)}, _DEEP),
    *(
        "é" * 3333,
        "e\u0301",
        "\u200b\u200d\u2060",
        "ＦＵＬＬ",
        "עִבְרִית",
        "日本語",
        "🏳️‍🌈",
        "\U0010ffff\U000e0001",
    ),
    *(1.1, 0.1 + 0.2, 1 / 3, 123456789012345680000.0, [1, 1.0, True, "1"], 4294967296, -2147483649, 1e-5),
]
_RANDOM = random.Random(20)
_CHARACTERS = [*map(chr, range(0x20)), *'"\\/ aé', "\u2028", "\ud800", "\udc00", "😀", "\uffff"]
ODD += [
    {
        "".join(_RANDOM.choices(_CHARACTERS, k=5)): [
            "".join(_RANDOM.choices(_CHARACTERS, k=_RANDOM.randrange(40)))
        ]
    }
    for _ in range(COUNT - len(ODD))
]


def meant(value: Any) -> Any:
    """Return what a reader of our bytes ought to get: ``null`` for NaN and infinities, characters whole."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    if isinstance(value, list):
        return [meant(element) for element in value]
    if isinstance(value, dict):
        return {meant(key): meant(member) for key, member in value.items()}
    return value


class Tap:
    """Hears a queue's events channel as bytes, from the first message on."""

    def __init__(self, server: Server, channel: str) -> None:
        self._client = server.client()
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
        self._channel = channel
        self.messages: list[bytes] = []

    async def open(self) -> None:
        await self._pubsub.subscribe(self._channel)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.messages) < count:
                message = await self._pubsub.get_message(timeout=1)
                if message is not None:
                    self.messages.append(message["data"])

    async def close(self) -> None:
        await self._pubsub.aclose()
        await self._client.aclose()


@pytest.fixture
async def odd_queue(make_queue: MakeQueue) -> Queue:
    """A queue whose jobs are named after the odd value they carry: ``"17"`` has ``ODD[17]``."""
    return make_queue(is_worker=True)


async def hear(node: NodeBee, event: str) -> dict[str, str]:
    """Return what Node heard, as its own JSON text by job id."""
    heard = await node.until(event, COUNT, within_s=60)
    return {job_id: json.dumps(value) for job_id, value in heard}


async def in_nodes_words(node: NodeBee, texts: list[str]) -> list[str]:
    """Return what Node reads in JSON texts."""
    return [json.dumps(json.loads(text)) for text in await node.call("canonical", texts=texts)]


def test_there_are_as_many_odd_values_as_promised() -> None:
    assert len(ODD) == COUNT


async def test_odd_results_are_read_by_node_as_our_bytes_say(
    odd_queue: Queue, node: NodeBee, valkey: Server
) -> None:
    tap = Tap(valkey, odd_queue.keys.events)
    await tap.open()

    @odd_queue.process(concurrency=20)
    async def handler(job: Job) -> Any:
        return ODD[int(job.saved_id())]

    jobs = [odd_queue.create_job({"n": n}).set_id(f"{n:03}") for n in range(COUNT)]
    assert await odd_queue.save_all(jobs) == {}
    heard = await hear(node, "job succeeded")
    await tap.until(COUNT)
    await tap.close()

    ours = {message["id"]: message for message in map(loads, tap.messages)}
    assert len(ours) == COUNT
    for job_id, message in ours.items():
        assert message.get("data") == meant(ODD[int(job_id)])
        assert ("data" in message) == (ODD[int(job_id)] is not None)
    received = [message for message in tap.messages if b'"data":' in message]
    read = await in_nodes_words(node, [message.decode() for message in received])
    for message, text in zip(received, read, strict=True):
        assert heard[json.loads(message)["id"]] == json.dumps(json.loads(text)["data"])
    assert await odd_queue.is_in_set("000", "succeeded")
    for job in jobs[:20]:
        assert await job.result(timeout=5000) == meant(ODD[int(job.saved_id())])
    assert node.is_alive


async def test_odd_payloads_are_read_by_node_as_our_bytes_say(
    odd_queue: Queue, make_node: MakeNode, redis: redis.asyncio.Redis
) -> None:
    jobs = [odd_queue.create_job([value]).set_id(f"{n:03}") for n, value in enumerate(ODD)]
    assert await odd_queue.save_all(jobs) == {}
    records = {str(job_id): str(text) for job_id, text in (await redis.hgetall(odd_queue.keys.jobs)).items()}
    node = await make_node(concurrency=10)
    await node.until("succeeded", COUNT, within_s=60)
    handled = {job["id"]: job["data"] for (job,) in node.of("handling")}
    ids = list(records)
    read = await in_nodes_words(node, [records[job_id] for job_id in ids])
    for job_id, text in zip(ids, read, strict=True):
        assert json.dumps(handled[job_id]) == json.dumps(json.loads(text)["data"])
        assert loads(records[job_id].encode())["data"] == [meant(ODD[int(job_id)])]
    assert (await odd_queue.check_health()).succeeded == COUNT
    assert node.is_alive


async def test_what_node_made_of_odd_payloads_is_read_by_python(
    odd_queue: Queue, make_node: MakeNode
) -> None:
    """After a Node worker has rewritten the records, in its own dialect."""
    jobs = [odd_queue.create_job([value]).set_id(f"{n:03}") for n, value in enumerate(ODD)]
    assert await odd_queue.save_all(jobs) == {}
    node = await make_node(concurrency=10)
    await node.until("succeeded", COUNT, within_s=60)
    handled = {job["id"]: job["data"] for (job,) in node.of("handling")}
    for job_id, data in handled.items():
        found = await odd_queue.get_job(job_id)
        assert found is not None
        assert found.status == "succeeded"
        assert json.dumps(found.data) == json.dumps(data)


async def test_odd_errors_are_errors_with_their_text_in_node(odd_queue: Queue, node: NodeBee) -> None:
    texts = [value if isinstance(value, str) else repr(value) for value in ODD]

    @odd_queue.process(concurrency=20)
    async def handler(job: Job) -> None:
        raise ValueError(texts[int(job.saved_id())])

    jobs = [odd_queue.create_job({}).set_id(f"{n:03}") for n in range(COUNT)]
    assert await odd_queue.save_all(jobs) == {}
    heard = await node.until("job failed", COUNT, within_s=60)
    assert len(heard) == COUNT
    for job_id, error in heard:
        text = meant(texts[int(job_id)]) or "ValueError"  # an error without a text is shown by its type
        if len(text) < 3000:
            assert error["$error"] == text
        else:
            assert error["$error"][:4000] == text[:4000]  # a long one keeps both its ends
            assert error["$error"][-4000:] == text[-4000:]
    for job in jobs[:20]:
        with pytest.raises(JobFailed) as raised:
            await job.result(timeout=5000)
        assert str(raised.value) == meant(texts[int(job.saved_id())])
    stored = await node.call("getJobs", type="failed", page={"size": COUNT})
    assert len(stored) == COUNT
    for job in stored:
        [trace] = job["options"]["stacktraces"]
        assert isinstance(trace, str)
        assert len(trace.encode("utf-8", "surrogatepass")) <= 10_500
    assert node.is_alive


async def test_odd_progress_is_read_by_node_as_our_bytes_say(
    odd_queue: Queue, node: NodeBee, valkey: Server
) -> None:
    tap = Tap(valkey, odd_queue.keys.events)
    await tap.open()
    job = await odd_queue.enqueue({}, id="the job")
    reported = [value for value in ODD if value is not None]
    for value in reported:
        await job.report_progress(value)
    heard = await node.until("job progress", len(reported), within_s=60)
    await tap.until(len(reported))
    await tap.close()
    assert [loads(message)["data"] for message in tap.messages] == [meant(value) for value in reported]
    read = await in_nodes_words(node, [message.decode() for message in tap.messages])
    assert [json.dumps(value) for _job_id, value in heard] == [
        json.dumps(json.loads(text)["data"]) for text in read
    ]
    assert node.is_alive


async def test_results_that_cannot_be_written_fail_the_job_not_node(odd_queue: Queue, node: NodeBee) -> None:
    """bee-queue would run such a job for ever."""
    circle: dict[str, Any] = {}
    circle["circle"] = circle
    unwritable = {"circle": circle, "set": {1, 2}, "bytes": b"raw", "object": object(), "keys": {(1, 2): 3}}

    @odd_queue.process(concurrency=3)
    async def handler(job: Job) -> Any:
        return unwritable[job.saved_id()]

    jobs = [await odd_queue.enqueue({}, id=name, retries=3) for name in unwritable]
    for job in jobs:
        with pytest.raises(JobFailed, match="cannot be written as JSON"):
            await job.result(timeout=10_000)
    heard = await node.until("job failed", len(jobs))
    assert {job_id for job_id, _error in heard} == set(unwritable)
    assert node.of("job retrying") == []
    assert node.is_alive


@pytest.mark.parametrize(
    "message",
    [
        b"null",
        b"",
        b"{",
        b"NaN",
        b'{"id":"1"}',
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"id":null,"event":5}',
        b"[" * 100_000,
    ],
)
async def test_a_message_that_is_no_event_harms_no_python_listener(
    odd_queue: Queue, redis: redis.asyncio.Redis, message: bytes
) -> None:
    """Seen from the other side: a bad message ends no listener."""
    heard = asyncio.Event()
    odd_queue.on("job succeeded", lambda _id, _result: heard.set())
    odd_queue.process(lambda _job: None)
    await odd_queue.ready()
    await redis.publish(odd_queue.keys.events, message)
    await odd_queue.enqueue({})
    await asyncio.wait_for(heard.wait(), 30)
