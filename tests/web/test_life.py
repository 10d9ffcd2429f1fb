"""How the HTTP face starts and ends, and what it does while Redis is away."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from bson import ObjectId
from starlette.applications import Starlette
from starlette.routing import Mount

from beeq import RedisRefused, RedisUnavailable
from beeq.service import QueueService
from beeq.web import app as app_of_the_environment
from beeq.web import create_app, routes, service_for, service_from_environment
from beeq.web.policy import policy_from_environment
from tests.support.mongo import MongoServer
from tests.support.server import free_port
from tests.web.app import MINE, OTHER, SCRIPT, WANTED, app_on, ask, client_of, error_of, live, serving

ROOT = Path(__file__).resolve().parents[2]
READS = ("/v1/jobs/x/status", "/v1/stats")


# The environment.


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment that says nothing of Redis."""
    for name in ("BEEQ_REDIS_URL", "REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_DB"):
        monkeypatch.delenv(name, raising=False)
    for name in ("BEEQ_PREFIX", "BEEQ_MONGO_URL", "MONGODB_URI", "BEEQ_WAIT_REPLICAS", "BEEQ_WEB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


async def test_the_app_reads_the_environment_when_it_starts(environ, valkey, prefix):
    environ.setenv("BEEQ_REDIS_URL", valkey.url)
    environ.setenv("REDIS_URL", "nonsense")
    environ.setenv("BEEQ_PREFIX", prefix)
    async with serving(app_of_the_environment) as client:
        job_id = (await client.post(SCRIPT, json=WANTED)).json()["jobId"]
    async with serving(app_on(valkey.url, prefix)) as client:
        assert (await client.get(f"/v1/jobs/{job_id}/status")).status_code == 200
    async with serving(app_on(valkey.url, f"{prefix}-other")) as client:
        assert (await client.get(f"/v1/jobs/{job_id}/status")).status_code == 404


async def test_it_may_be_the_folders_own_server(environ, tmp_path):
    """Without a setting it is the local Redis, as for the library."""
    environ.chdir(tmp_path)
    environ.setenv("BEEQ_REDIS_URL", "embedded:")
    async with serving(app_of_the_environment) as client:
        answer = await client.post(SCRIPT, json=WANTED)
        assert answer.status_code == 200
    assert (tmp_path / ".beeq").is_dir()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BEEQ_REDIS_URL", "", "BEEQ_REDIS_URL: the Redis URL is empty"),
        ("REDIS_URL", "http://:hush@host", "REDIS_URL: the Redis URL must begin with one of"),
        ("BEEQ_MONGO_URL", "http://:hush@host", "BEEQ_MONGO_URL: "),
        ("BEEQ_WAIT_REPLICAS", "two", "BEEQ_WAIT_REPLICAS: it is not a valid number"),
        ("BEEQ_WEB_TOKEN", "", "BEEQ_WEB_TOKEN: the token must have"),
        ("BEEQ_WEB_TOKEN", "hush now", "BEEQ_WEB_TOKEN: the token must have"),
        ("BEEQ_WEB_TOKEN", "hush\n", "BEEQ_WEB_TOKEN: the token must have"),
        ("BEEQ_ALLOW_HOST", "a.example,b c", "BEEQ_ALLOW_HOST: 'b c' is not a host"),
        ("BEEQ_ALLOW_HOST", "*", "BEEQ_ALLOW_HOST: '*' is not a host"),
        ("BEEQ_MAX_WAITING", "0", "BEEQ_MAX_WAITING: it is not a valid number of jobs"),
        ("BEEQ_MAX_WAITING", "1e3", "BEEQ_MAX_WAITING: it is not a valid number of jobs"),
        ("BEEQ_READ_ONLY", "maybe", "BEEQ_READ_ONLY: it must be 1 or 0"),
        ("BEEQ_HIDE_DATA", "2", "BEEQ_HIDE_DATA: it must be 1 or 0"),
        ("MONGODB_URI", "", "MONGODB_URI: "),
        ("REDIS_PORT", "many", "REDIS_PORT: it is not a valid number"),
        (
            "REDIS_URL",
            "redis+cluster://host:1",
            "in a cluster the prefix or the queue's name needs a hash tag",
        ),
        ("REDIS_URL", "redis://host:1?hush=1", "the Redis URL has an option that redis-py does not know"),
    ],
)
async def test_a_wrong_setting_fails_the_start_with_its_name(environ, name, value, message):
    environ.setenv(name, value)
    (said,) = await live(app_of_the_environment, "startup")
    assert said["type"] == "lifespan.startup.failed"
    assert said["message"].startswith(message)
    assert "hush" not in said["message"]
    assert "Traceback" not in said["message"]


async def test_it_ends_though_connecting_lost_a_cancellation(monkeypatch, valkey, prefix):
    """As when one of its queues fails to connect at that moment."""
    begun, lost = asyncio.Event(), asyncio.Event()

    async def connect(_service: QueueService) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if lost.is_set():
                raise
            lost.set()
            raise RedisUnavailable("gone") from None

    monkeypatch.setattr(QueueService, "connect", connect)
    async with asyncio.timeout(30), app_on(valkey.url, prefix).running():
        await begun.wait()
    assert lost.is_set()


@pytest.mark.parametrize(
    ("value", "is_on"), [("1", True), ("y", True), (" On ", True), ("0", False), ("N", False), ("", False)]
)
def test_reading_only_and_hiding_are_switched_by_the_environment(value, is_on):
    for name, attribute in (("BEEQ_READ_ONLY", "is_read_only"), ("BEEQ_HIDE_DATA", "hides_data")):
        assert getattr(policy_from_environment({name: value}), attribute) is is_on
        assert getattr(policy_from_environment({}), attribute) is False


def test_a_service_of_the_environment_asks_for_nothing_else():
    service = service_from_environment({})
    settings = [queue.settings for queue in service.queues.values()]
    assert {one.prefix for one in settings} == {"bq"}
    assert not any(one.is_worker or one.get_events or one.activate_delayed_jobs for one in settings)


async def test_with_a_mirror_statuses_come_from_it_and_lag_is_written(
    environ, own_valkey, tmp_path, eventually
):
    with MongoServer(tmp_path) as mongo:
        environ.setenv("BEEQ_REDIS_URL", own_valkey.url)
        environ.setenv("BEEQ_MONGO_URL", mongo.url("mirror"))
        async with serving(app_of_the_environment) as client:
            job_id = (await client.post(SCRIPT, json=WANTED)).json()["jobId"]
            await eventually(lambda: mongo.documents("mirror"))
            assert (await client.get("/v1/stats")).json()["ai-generation"]["owed"] >= 0
            with mongo.client() as direct:
                # As the platform may have it: a reference of MongoDB's own kind, and fields of its own.
                change = {"projectId": ObjectId("0123456789abcdef01234567"), "seen": datetime.now(UTC)}
                direct["mirror"]["queue-jobs"].update_one({"jobId": job_id}, {"$set": change})
            own_valkey.stop()
            answer = await client.get(f"/v1/jobs/{job_id}/status")
    assert answer.status_code == 200
    document = answer.json()
    assert (document["jobId"], document["status"]) == (job_id, "queued")
    assert document["projectId"] == "0123456789abcdef01234567"
    assert document.keys() & {"_id", "beeq", "__v"} == set()
    for name in ("createdAt", "updatedAt", "seen"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", document[name])


# Starting and ending.


async def test_the_lifespan_opens_the_service_and_closes_it(valkey):
    made: list[QueueService] = []

    def make() -> QueueService:
        made.append(QueueService(redis=valkey.url, get_events=False))
        return made[-1]

    app = create_app(make)
    assert made == []
    for round_ in (1, 2):
        assert await live(app, "startup", "shutdown") == [
            {"type": "lifespan.startup.complete"},
            {"type": "lifespan.shutdown.complete"},
        ]
        assert len(made) == round_
        assert not any(queue.is_running() for queue in made[-1].queues.values())


async def test_a_server_that_is_cancelled_leaves_nothing_open(valkey):
    service = QueueService(redis=valkey.url, get_events=False)
    started = asyncio.Event()

    async def receive():
        if started.is_set():
            await asyncio.Event().wait()  # until it is cancelled
        return {"type": "lifespan.startup"}

    async def send(_message):
        started.set()

    running = asyncio.create_task(create_app(lambda: service)({"type": "lifespan"}, receive, send))
    await asyncio.wait_for(started.wait(), 30)
    running.cancel()
    await asyncio.wait([running], timeout=10)
    assert running.cancelled()
    assert not any(queue.is_running() for queue in service.queues.values())


async def test_it_runs_once_at_a_time(valkey):
    app = app_on(valkey.url)
    async with app.running():
        with pytest.raises(RuntimeError, match="runs already"):
            async with app.running():
                raise AssertionError("it ran twice")
        async with client_of(app) as client:
            assert (await client.get("/health")).status_code == 200


async def test_without_its_lifespan_it_says_so_in_the_log_alone(valkey, caplog):
    async with client_of(app_on(valkey.url)) as client:
        answer = await client.get("/health")
    assert answer.status_code == 500
    assert error_of(answer) == "Internal error"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert "lifespan has not started" in str(record.exc_info[1])


async def test_it_can_be_mounted_into_another_application(valkey, prefix, make_queue):
    app = app_on(valkey.url, prefix)
    outer = Starlette(routes=[Mount("/queue dépôt", app=app)])
    async with app.running(), client_of(outer) as client:
        asked = await client.post(f"/queue dépôt{SCRIPT}", json=WANTED)
        assert asked.status_code == 200
        await make_queue("ai-generation", prefix=prefix, is_worker=False).enqueue({}, id="a/b")
        status = await client.get("/queue%20d%C3%A9p%C3%B4t/v1/jobs/a%2Fb/status")
        assert status.json()["jobId"] == "a/b"
        assert (await client.get("/queue dépôt/nowhere")).json() == {"error": "Not found"}


async def test_a_root_path_of_the_server_is_no_part_of_the_routes(valkey):
    app = app_on(valkey.url)
    transport = httpx.ASGITransport(app=app, root_path="/api")
    async with app.running(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        assert (await client.get("/api/health")).status_code == 200


# Redis away.


async def assert_away(client: httpx.AsyncClient) -> None:
    health = await client.get("/health")
    assert (health.status_code, health.json()) == (503, {"status": "unavailable"})
    asked = await client.post(SCRIPT, json=WANTED)
    for answer in (asked, *[await client.get(path) for path in READS]):
        assert answer.status_code == 503
        assert answer.json() == {"error": "Redis is not available"}


async def test_redis_may_go_and_come_back(own_valkey, eventually):
    async with serving(app_on(own_valkey.url)) as client:
        assert (await client.post(SCRIPT, json={**WANTED, "id": MINE})).status_code == 200
        own_valkey.stop(keep_data=True)
        await assert_away(client)
        own_valkey.start()

        async def is_well() -> bool:
            return (await client.get("/health")).status_code == 200

        await eventually(is_well)
        assert (await client.post(SCRIPT, json={**WANTED, "id": OTHER})).status_code == 200
        assert (await client.get(f"/v1/jobs/{MINE}/status")).status_code == 200
        assert (await client.get("/v1/stats")).json()["ai-generation"]["waiting"] == 2


async def test_redis_may_be_away_at_the_start(own_valkey, caplog, eventually):
    own_valkey.stop()
    async with serving(app_on(own_valkey.url)) as client:
        await assert_away(client)
        await eventually(lambda: any("not available yet" in record.message for record in caplog.records))
        own_valkey.start()

        async def is_asked() -> bool:
            return (await client.post(SCRIPT, json=WANTED)).status_code == 200

        await eventually(is_asked)
        assert (await client.get("/v1/stats")).status_code == 200


async def test_the_lifespan_begins_and_ends_while_redis_is_away():
    began = time.monotonic()
    said = await live(app_on(f"redis://127.0.0.1:{free_port()}"), "startup", "shutdown")
    assert [message["type"] for message in said] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
    assert time.monotonic() - began < 5


async def test_nobody_waits_for_ever_for_a_redis_that_is_silent(own_valkey, monkeypatch):
    monkeypatch.setattr(routes, "REDIS_TIMEOUT_S", 1.0)
    async with serving(app_on(own_valkey.url)) as client:
        assert (await client.get("/health")).status_code == 200
        own_valkey.pause()
        try:
            began = time.monotonic()
            assert (await client.get("/health")).status_code == 503
            assert time.monotonic() - began < 5
            answers = await asyncio.gather(
                client.post(SCRIPT, json=WANTED), *(client.get(path) for path in READS)
            )
            assert [answer.status_code for answer in answers] == [503, 503, 503]
            assert time.monotonic() - began < 10
        finally:
            own_valkey.resume()


async def test_neither_url_nor_password_is_shown_or_logged(valkey, caplog):
    caplog.set_level(logging.DEBUG)
    async with serving(app_on(f"redis://user:hush@127.0.0.1:{valkey.port}")) as client:
        answers = [await ask(client, WANTED), *[await client.get(path) for path in ("/health", *READS)]]
    for answer in answers:
        assert answer.status_code == 503
        assert str(valkey.port) not in answer.text
        assert "hush" not in answer.text
    assert caplog.records
    assert "hush" not in caplog.text


async def test_a_redis_that_refuses_is_no_error_of_ours(own_valkey, caplog):
    async with serving(app_on(own_valkey.url)) as client:
        assert (await client.post(SCRIPT, json=WANTED)).status_code == 200
        async with own_valkey.client() as direct:
            await direct.config_set("maxmemory", "1")
        answer = await client.post(SCRIPT, json=WANTED)
        assert answer.status_code == 503
        assert error_of(answer) == "Redis refused"
        assert "OOM" in caplog.text
        assert (await client.get("/v1/stats")).status_code == 200


# Errors of ours.


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (KeyError("hush"), 500),
        (TypeError("hush"), 500),
        (RedisRefused("ERR hush"), 503),
        (OSError("hush"), 500),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_the_words_of_an_error_are_for_the_log(valkey, caplog, monkeypatch, failure, status):
    async def fail(*_arguments, **_more):
        raise failure

    for name in ("add_ai_generation_job", "get_job_status", "queue_stats"):
        monkeypatch.setattr(QueueService, name, fail)
    async with serving(app_on(valkey.url)) as client:
        for answer in (await ask(client, WANTED), *[await client.get(path) for path in READS]):
            assert answer.status_code == status
            assert "hush" not in answer.text
            assert error_of(answer) == ("Internal error" if status == 500 else "Redis refused")
    assert caplog.text.count("hush") >= 3


# Importing.


def python(statement: str, *, without: str) -> subprocess.CompletedProcess[str]:
    """Run a statement where a package is not installed."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{without!r}] = None; {statement}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.external  # it imports all
def test_without_starlette_the_import_names_the_extra():
    ran = python("import beeq.web", without="starlette")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        "ImportError: beeq.web needs Starlette: pip install 'beequeue[web]'"
    )


@pytest.mark.external  # it imports all
def test_without_uvicorn_the_app_imports_and_names_the_extra():
    assert python("import beeq.web", without="uvicorn").returncode == 0
    ran = python("import beeq.web.server", without="uvicorn")
    assert ran.stderr.splitlines()[-1] == (
        "ImportError: beeq.web.server needs uvicorn: pip install 'beequeue[web]'"
    )


@pytest.mark.external  # it imports all
def test_without_starlette_all_else_can_be_imported():
    ran = python(
        "import beeq, beeq.service, beeq.sync, beeq.processors, beeq.jobs; print('fine')", without="starlette"
    )
    assert (ran.returncode, ran.stdout) == (0, "fine\n")


@pytest.mark.external  # it imports all
def test_importing_the_app_reads_no_environment():
    ran = python("import os; os.environ['BEEQ_REDIS_URL'] = 'nonsense'; import beeq.web", without="uvicorn")
    assert (ran.returncode, ran.stderr) == (0, "")


async def test_a_job_that_no_replica_confirms_is_named_not_promised(valkey, prefix):
    """The session's server has no replica. Who asks again with the same id adds no second job."""
    app = create_app(lambda: service_for(valkey.url, prefix, wait_replicas=1))
    async with serving(app) as client:
        answer = await client.post(SCRIPT, json={**WANTED, "id": MINE})
    assert answer.status_code == 503
    assert answer.json()["error"] == f"Job {MINE} is not confirmed by replicas yet"
    async with serving(app_on(valkey.url, prefix)) as client:
        assert (await client.get(f"/v1/jobs/{MINE}/status")).status_code == 200
