"""The HTTP routes: what each answers when all is well, and what it answers when the question is not."""

from __future__ import annotations

import json
import re
import uuid
from urllib.parse import quote, unquote

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from beeq import Discard, Queue
from beeq.jobs import JOB_TYPES
from beeq.protocol.codec import loads
from tests.web.app import MINE, OTHER, SCRIPT, WANTED, app_on, ask, client_of

EMPTY = {
    "waiting": 0,
    "active": 0,
    "succeeded": 0,
    "failed": 0,
    "delayed": 0,
    "newestJob": 0,
    "workers": 0,
    "oldestWaiting": None,
}


# A script.


async def test_a_script_request_is_a_job_of_the_ai_queue_on_its_terms(client, make_queue, prefix):
    answer = await client.post(SCRIPT, json={**WANTED, "prompt": "hum", "modelId": "m", "tone": "dry"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json().keys() == {"jobId", "message"}
    assert answer.json()["message"] == "Script generation started"
    job = await make_queue("ai-generation", prefix=prefix, is_worker=False).get_job(answer.json()["jobId"])
    assert str(uuid.UUID(job.id)) == job.id
    created_at = job.data.pop("createdAt")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created_at)
    assert job.data == {
        **WANTED, "id": job.id, "type": "script", "prompt": "hum", "modelId": "m", "tone": "dry",
    }  # fmt: skip
    assert job.options["timeout"] == 30 * 60_000
    assert job.options["retries"] == 3
    assert job.options["backoff"] == {"strategy": "exponential", "delay": 2000}


async def test_asking_again_with_the_same_id_asks_once(client):
    for job_id in (MINE, OTHER):
        first = await client.post(SCRIPT, json={**WANTED, "id": job_id})
        again = await client.post(SCRIPT, json={**WANTED, "id": job_id, "parameters": {}})
        assert [answer.status_code for answer in (first, again)] == [200, 200]
        assert first.json() == again.json()
        assert first.json()["jobId"] == job_id
        kept = (await client.get(f"/v1/jobs/{job_id}/status")).json()["jobData"]
        assert kept["parameters"] == WANTED["parameters"]
    assert (await client.get("/v1/stats")).json()["ai-generation"]["waiting"] == 2


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON ;charset=UTF-8"]
)
async def test_the_type_of_the_body_may_name_its_charset(client, content_type):
    answer = await client.post(
        SCRIPT,
        content='{"projectId":"ü","userId":1,"parameters":{}}',
        headers={"content-type": content_type},
    )
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("change", "faults"),
    [
        ({"projectId": None}, ["projectId: must be text or a whole number"]),
        ({"projectId": ""}, ["projectId: must not be empty"]),
        ({"projectId": 1.5}, ["projectId: must be text or a whole number"]),
        ({"userId": True}, ["userId: must be text or a whole number"]),
        ({"userId": "a\0"}, ["userId: must not hold a NUL character"]),
        ({"userId": "\ud800"}, ["userId: must be valid Unicode"]),
        ({"userId": "u" * 513}, ["userId: must have at most 512 characters, not 513"]),
        ({"parameters": []}, ["parameters: input should be a valid dictionary"]),
        ({"parameters": None}, ["parameters: input should be a valid dictionary"]),
        ({"id": 5}, ["id: input should be a valid string"]),
        ({"id": ""}, ["id: must not be empty"]),
        ({"id": "1"}, ["id: must be a UUID, or not given"]),
        ({"prompt": 5}, ["prompt: input should be a valid string"]),
        ({"modelId": {}}, ["modelId: input should be a valid string"]),
        ({"type": "image"}, ["type: must be script, or not given"]),
        ({"createdAt": "soon"}, ["createdAt: must be a date and time in ISO 8601"]),
        (
            {"projectId": [], "userId": {}, "parameters": 1},
            [
                "projectId: must be text or a whole number",
                "userId: must be text or a whole number",
                "parameters: input should be a valid dictionary",
            ],
        ),
    ],
)
async def test_every_wrong_field_is_named_and_nothing_is_queued(client, change, faults):
    answer = await ask(client, {**WANTED, **change})
    assert answer.status_code == 400
    assert answer.json() == {"error": "; ".join(faults), "faults": faults}
    assert (await client.get("/v1/stats")).json()["ai-generation"] == EMPTY


@pytest.mark.parametrize("name", ["projectId", "userId", "parameters"])
async def test_a_missing_field_is_named(client, name):
    answer = await client.post(SCRIPT, json={key: value for key, value in WANTED.items() if key != name})
    assert answer.status_code == 400
    assert answer.json()["faults"] == [f"{name}: field required"]


async def test_the_values_of_a_request_are_not_repeated(client):
    secret = "hush-5417"
    for change in (
        {"projectId": [secret]},
        {"type": secret},
        {"createdAt": secret},
        {"modelId": [secret]},
        {"parameters": secret},
    ):
        answer = await client.post(SCRIPT, json={**WANTED, **change})
        assert answer.status_code == 400
        assert secret not in answer.text
    answer = await client.post(
        SCRIPT, content=f'"{secret}" {secret}', headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert secret not in answer.text


# Its status.


async def test_the_status_is_the_platforms_document(client):
    job_id = (await client.post(SCRIPT, json=WANTED)).json()["jobId"]
    answer = await client.get(f"/v1/jobs/{job_id}/status")
    assert answer.status_code == 200
    document = answer.json()
    created_at = document["createdAt"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", created_at)
    assert document == {
        "jobId": job_id,
        "queueName": "ai-generation",
        "status": "queued",
        "jobData": {**WANTED, "id": job_id, "type": "script", "createdAt": document["jobData"]["createdAt"]},
        "result": None,
        "error": None,
        "projectId": "project-1",
        "createdAt": created_at,
        "updatedAt": created_at,
    }


async def test_the_status_follows_the_job_to_its_end(client, valkey, prefix, make_queue, eventually):
    ids = [
        (await client.post(SCRIPT, json={**WANTED, "id": job_id})).json()["jobId"] for job_id in (MINE, OTHER)
    ]
    worker = make_queue("ai-generation", prefix=prefix)

    @worker.process()
    async def handle(job):
        if job.id == OTHER:
            raise Discard("no bees")
        return {"title": "Bees", "scenes": []}

    async def document(job_id):
        return (await client.get(f"/v1/jobs/{job_id}/status")).json()

    async def ended():
        found = [await document(job_id) for job_id in ids]
        return found if all(entry["status"] in ("completed", "failed") for entry in found) else None

    good, bad = await eventually(ended)
    assert (good["status"], good["result"], good["error"]) == (
        "completed",
        {"title": "Bees", "scenes": []},
        None,
    )
    assert (bad["status"], bad["result"], bad["error"]) == ("failed", None, "no bees")


@pytest.mark.parametrize(
    "job_id",
    [
        "a/b",
        "a%2Fb",
        "?",
        "#",
        "a b",
        "ü/☃",
        "..",
        ".",
        "a;b=c",
        "+",
        "%",
        "status",
        "a/status",
        "\x01\n",
        "😀",
    ],
)
async def test_an_id_may_hold_any_character(client, make_queue, prefix, job_id):
    queue = make_queue("ai-generation", prefix=prefix, is_worker=False)
    await queue.enqueue({"type": "script"}, id=job_id)
    # As raw bytes: a client would take dots for folders.
    path = f"/v1/jobs/{quote(job_id, safe='')}/status".encode()
    answer = await client.send(_raw(client, "GET", path))
    assert answer.status_code == 200
    assert answer.json()["jobId"] == job_id


def _raw(client: httpx.AsyncClient, method: str, path: bytes) -> httpx.Request:
    """Return a request whose path is sent as it is."""
    request = client.build_request(method, "/")
    request.url = _RawURL(str(request.url), path)
    return request


class _RawURL(httpx.URL):
    """A URL that does not tidy its path."""

    def __init__(self, url: str, path: bytes) -> None:
        super().__init__(url)
        self._raw = path

    @property
    def raw_path(self) -> bytes:
        return self._raw

    @property
    def path(self) -> str:
        return unquote(self._raw.partition(b"?")[0].decode())


@pytest.mark.parametrize(
    "path", ["/v1/jobs/%30{}/status", "/%76%31/jobs/0{}/%73tatus", "/v1/jobs/0{}/status?x=/"]
)
async def test_a_path_may_be_encoded_where_it_need_not_be(client, path):
    await client.post(SCRIPT, json={**WANTED, "id": MINE})
    path = path.format(MINE[1:])
    assert (await client.send(_raw(client, "GET", path.encode()))).json()["jobId"] == MINE


async def test_the_path_is_enough_for_a_server_without_the_raw_one(valkey, prefix, make_queue):
    app = app_on(valkey.url, prefix)

    async def without_raw_path(scope, receive, send):
        del scope["raw_path"]
        await app(scope, receive, send)

    await make_queue("ai-generation", prefix=prefix, is_worker=False).enqueue({}, id="ü %")
    async with app.running(), client_of(without_raw_path) as other:
        assert (await other.get("/v1/jobs/%C3%BC%20%25/status")).json()["jobId"] == "ü %"


async def test_a_path_that_a_middleware_has_changed_counts(valkey, prefix, make_queue):
    app = app_on(valkey.url, prefix)

    async def without_prefix(scope, receive, send):
        await app({**scope, "path": scope["path"].removeprefix("/api")}, receive, send)

    async with app.running(), client_of(without_prefix) as client:
        assert (await client.get("/api/health")).status_code == 200
        await make_queue("ai-generation", prefix=prefix, is_worker=False).enqueue({}, id="ü %")
        assert (await client.get("/api/v1/jobs/%C3%BC%20%25/status")).json()["jobId"] == "ü %"


@pytest.mark.parametrize("path", ["/v1/jobs/nobody/status", "/v1/jobs/%ff/status", "/v1/jobs/%00/status"])
async def test_an_unknown_job_is_answered_with_404(client, path):
    answer = await client.send(_raw(client, "GET", path.encode()))
    assert answer.status_code == 404
    assert answer.json() == {"error": "Job not found"}


async def test_a_job_of_any_of_the_four_queues_is_found(client, valkey, prefix, make_queue):
    queue = make_queue("webhook-processing", prefix=prefix, is_worker=False)
    await queue.enqueue({"webhookUrl": "https://a.example", "payload": {}, "projectId": 3}, id="hook")
    document = (await client.get("/v1/jobs/hook/status")).json()
    assert (document["queueName"], document["status"], document["projectId"]) == ("webhook", "queued", 3)


async def test_odd_data_of_others_are_answered_as_by_node(client, make_queue, prefix):
    queue: Queue = make_queue("media-processing", prefix=prefix, is_worker=False)
    data = {"a\0": "\ud800", "big": 10**400, "x": [None, True, 1.5]}
    await queue.enqueue(data, id="odd")
    answer = await client.get("/v1/jobs/odd/status")
    assert answer.status_code == 200
    assert loads(answer.content)["jobData"] == data


async def test_deeply_nested_data_are_answered_as_far_as_possible(client, redis, prefix):
    deep = '{"options":{"timestamp":1795488864455},"data":%s}'
    await redis.hset(f"{prefix}:media-processing:jobs", "deep", deep % ('{"a":[' * 300 + "]}" * 300))
    await redis.lpush(f"{prefix}:media-processing:waiting", "deep")
    answer = await client.get("/v1/jobs/deep/status")
    assert answer.status_code == 200
    document = answer.json()
    assert (document["jobId"], document["status"]) == ("deep", "queued")
    assert json.dumps(document["jobData"]).count("{") == 50
    assert "(nested too deeply)" in answer.text


# Health, numbers.


async def test_health_is_ok_while_redis_answers(client):
    answer = await client.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_metrics_are_those_of_the_four_queues(client, make_queue, prefix):
    await ask(client, WANTED)
    answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["beeq_jobs", "ai-generation", "waiting"] == 1
    assert samples["beeq_jobs_enqueued_total", "ai-generation"] == 1
    assert {labels[0] for name, *labels in samples if name == "beeq_jobs"} == set(JOB_TYPES)
    accepted = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
    assert accepted.headers["content-type"].startswith("application/openmetrics-text")


async def test_the_stats_are_those_of_the_four_queues(client, make_queue, prefix):
    await client.post(SCRIPT, json=WANTED)
    await make_queue("video-assembly", prefix=prefix, is_worker=False).enqueue({}, delay_until=2**42)
    numbers = (await client.get("/v1/stats")).json()
    assert 0 <= numbers["ai-generation"].pop("oldestWaiting") < 60_000
    assert numbers == {
        "ai-generation": {k: v for k, v in {**EMPTY, "waiting": 1}.items() if k != "oldestWaiting"},
        "media-processing": EMPTY,
        "video-assembly": {**EMPTY, "delayed": 1, "newestJob": 1},
        "webhook-processing": EMPTY,
    }


# Whatever else is asked.


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/health/",
        "/v1/jobs",
        "/v1/jobs//status",
        "/v1/jobs/a/b/status",
        "/docs",
        "//health",
        "/v1/jobs/a",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
async def test_an_unknown_route_is_answered_with_404(client, method, path):
    answer = await client.send(_raw(client, method, path.encode()))
    assert answer.status_code == 404
    assert answer.json() == {"error": "Not found"}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (SCRIPT, "POST, OPTIONS"),
        ("/v1/jobs/x/status", "GET, HEAD, OPTIONS"),
        ("/v1/stats", "GET, HEAD, OPTIONS"),
        ("/metrics", "GET, HEAD, OPTIONS"),
        ("/health", "GET, HEAD, OPTIONS"),
        ("/openapi.json", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_wrong_method_is_answered_with_the_routes_methods(client, path, allowed):
    for method in {"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "BREW"} - set(allowed.split(", ")):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
        if method != "HEAD":
            assert answer.json() == {"error": "Method not allowed"}
    asked = await client.options(path)
    assert (asked.status_code, asked.headers["allow"], asked.content) == (204, allowed, b"")


@pytest.mark.parametrize(
    "path", ["/health", "/v1/stats", "/openapi.json", "/v1/jobs/nobody/status", "/nowhere"]
)
async def test_head_is_get_without_the_body(client, path):
    head, get = await client.head(path), await client.get(path)
    assert head.status_code == get.status_code
    assert head.headers == get.headers
    assert head.content == b""


async def test_no_page_of_another_origin_may_read_an_answer(client):
    for answer in (
        await client.options(SCRIPT, headers={"access-control-request-method": "POST"}),
        await client.post(SCRIPT, json=WANTED),
        await client.get("/health"),
    ):
        assert answer.is_success
        assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_websocket_is_turned_away(valkey):
    said = []

    async def send(message):
        said.append(message["type"])

    await app_on(valkey.url)({"type": "websocket", "path": "/health"}, None, send)
    assert said == ["websocket.close"]


@pytest.mark.parametrize(
    ("trace", "kept"), [("[" * 900 + "]" * 900, None), ('"Error: x"', "no JSON"), ('"Error: x"', "1:f5")]
)
async def test_bookkeeping_that_nobody_wrote_is_answered(client, redis, prefix, trace, kept):
    record = f'{{"options":{{"timestamp":1,"stacktraces":[{trace}]}},"data":{{}}}}'
    await redis.hset(f"{prefix}:media-processing:jobs", "odd", record)
    await redis.sadd(f"{prefix}:media-processing:failed", "odd")
    if kept is not None:
        await redis.hset(f"{prefix}:media-processing:beeq:results", "odd", kept)
    answer = await client.get("/v1/jobs/odd/status")
    assert answer.status_code == 200
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"] == ("the job failed" if kept is None else "x")
