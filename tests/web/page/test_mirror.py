"""The mirror on the page: a job's document, jobs that Redis has forgotten, and MongoDB slow or away."""

from __future__ import annotations

import asyncio
import base64
import gc
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Code, DatetimeMS, DBRef, Decimal128, Int64, MinKey, ObjectId, Regex, Timestamp, encode

from beeq import Queue
from beeq.mirror import history as history_module
from beeq.mirror.collection import StatusCollection
from beeq.mirror.mirror import Mirror
from beeq.service import QueueService
from tests.support.mongo import MongoServer
from tests.support.waiting import eventually
from tests.web.page.conftest import client_of
from tests.web.page.forms import buttons_of, links_of, text_of

#: PyMongo leaves a socket whose server went away to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
HOOK = {"webhookUrl": "https://example.com/", "projectId": "p-1", "payload": {"film": "Nosferatu"}}
HOSTILE = "<img src=x onerror=alert(1)>\u202e"


@pytest.fixture(scope="module")
def mongo(tmp_path_factory) -> Iterator[MongoServer]:
    with MongoServer(tmp_path_factory.mktemp("mongo")) as server:
        yield server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Scene:
    """The built-in queues of one prefix, and their mirror, which writes when it is asked to."""

    def __init__(self, redis_url: str, prefix: str, mongo: MongoServer) -> None:
        self.mongo, self.database, self.redis_url = mongo, prefix, redis_url
        self.service = QueueService(redis=redis_url, prefix=prefix, mirrored=True)
        self.mirror = Mirror(self.url, redis=redis_url, prefix=prefix)

    @property
    def url(self) -> str:
        return self.mongo.url(self.database)

    async def add(self, job_id: str, **fields: Any) -> Any:
        return await self.service.add_webhook_job({**HOOK, "id": job_id, **fields})

    async def write(self) -> None:
        """Have the mirror write all that has happened."""
        self.mirror.start()
        assert await self.mirror.flush(20)

    async def run(self, name: str, handler: Any, *job_ids: str) -> None:
        """Run jobs of a queue until they have ended."""
        async with Queue(name, redis=self.redis_url, prefix=self.database, mirrored=True) as queue:
            queue.process(handler)
            for each in job_ids:
                job = await queue.get_job(each)
                assert job is not None
                await job.result(timeout=10_000)

    def change(self, job_id: str, **fields: Any) -> None:
        with self.mongo.client() as client:
            client[self.database]["queue-jobs"].update_one({"jobId": job_id}, {"$set": fields})

    def insert(self, *documents: dict[str, Any]) -> None:
        with self.mongo.client() as client:
            client[self.database]["queue-jobs"].insert_many(documents)


@pytest.fixture
async def scene(valkey, prefix, mongo, audit) -> AsyncIterator[Scene]:
    scene = Scene(valkey.url, prefix, mongo)
    yield scene
    await scene.mirror.stop()
    for queue in scene.service.queues.values():
        await queue.destroy()
    await scene.service.close()


@pytest.fixture
async def client(make_page, scene):
    async with client_of(make_page(mongo=scene.url)) as client:
        yield client


def address(job_id: str) -> str:
    return f"/q/webhook-processing/jobs/{job_id}"


def document(job_id: str, **fields: Any) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "jobId": job_id,
        "queueName": "webhook",
        "status": "completed",
        "jobData": HOOK,
        "result": None,
        "error": None,
        "createdAt": now,
        "updatedAt": now,
        **fields,
    }


def encoded(value: Any) -> str:
    """Return the place behind that ``_id``, as an address has it."""
    return "b." + base64.urlsafe_b64encode(encode({"": value})).decode()


def nested(levels: int) -> Any:
    return {"a": nested(levels - 1)} if levels else 1


async def test_a_document_that_agrees_is_said_and_shown(client, scene):
    await scene.add("one")
    await scene.run("webhook-processing", lambda _: {"ok": True}, "one")
    await scene.write()
    shown = text_of(await client.get(address("one")))
    assert "The document agrees with Redis" in shown
    assert '"completed"' in shown


async def test_a_job_whose_changes_wait_says_how_many(client, scene):
    await scene.add("one")
    shown = text_of(await client.get(address("one")))
    assert "MongoDB has no document of this job; 1 change waits to be written" in shown
    await scene.write()
    await scene.mirror.stop()
    await scene.run("webhook-processing", lambda _: 1, "one")
    shown = text_of(await client.get(address("one")))
    assert "It is late: by Redis it is completed, by the document queued" in shown


async def test_a_document_that_somebody_has_changed_says_which_fields(client, scene):
    await scene.add("one")
    await scene.write()
    scene.change("one", status="failed", error="by hand")
    shown = text_of(await client.get(address("one")))
    assert "Not beeq has written status and error of the document" in shown


async def test_only_built_in_queues_of_the_first_prefix_have_documents(make_page, scene, put, prefix):
    await put("mail", {"n": 1})
    await scene.add("one")
    async with client_of(make_page(mongo=scene.url, prefixes=[f"{prefix}-other", prefix])) as client:
        assert "Mirror" not in text_of(await client.get("/q/mail/jobs/1", params={"prefix": prefix}))
        assert "Mirror" not in text_of(await client.get(address("one"), params={"prefix": prefix}))


async def test_a_job_that_redis_has_forgotten_is_shown_without_buttons(client, scene):
    await scene.add("one")
    await scene.run("webhook-processing", lambda _: {"sent": 2**60}, "one")
    await scene.write()
    await scene.service.queues["webhook-processing"].remove_job("one")
    shown = await client.get(address("one"))
    assert shown.status_code == 200
    for text in ("Redis has forgotten this job", "completed", "Nosferatu", str(2**60), "p-1"):
        assert text in text_of(shown)
    assert buttons_of(shown) == []
    assert (await client.get(f"{address('one')}/data")).json()["payload"] == HOOK["payload"]
    assert (await client.get(f"{address('one')}/result")).json() == {"sent": 2**60}
    assert str((await client.get("/search", params={"q": "one"})).headers["location"]) == address("one")


async def test_a_forgotten_job_still_shows_the_film_that_it_made(make_page, scene, tmp_path):
    film = b"\0\0\0\x18ftypisom\0\0\0\0isommp42"
    (tmp_path / "a.mp4").write_bytes(film)
    made = document("m", queueName="media-processing", jobData={}, result={"path": "a.mp4"})
    scene.insert(made, document("h", queueName="media-processing", result={"path": "../a.mp4"}))
    async with client_of(make_page(mongo=scene.url, media_root=tmp_path)) as client:
        place = "/q/media-processing/jobs"
        assert "<video" in (await client.get(f"{place}/m")).text
        assert (await client.get(f"{place}/m/files/0")).content == film
        assert (await client.get(f"{place}/h/files/0")).status_code == 404


async def test_text_is_found_in_documents_that_redis_has_forgotten(client, scene):
    texts = ["Nosferatu", "übung", "日本", '"film":"N', "deep 12", "late error", "7.25", "n0tes"]
    data = {**HOOK, "payload": {"film": "Nosferatu", "deep": [{"x": "Übung 日本, deep 12", "n": 7.25}]}}
    scene.insert(
        document("gone", jobData=data, result={"n0tes": 1}, error="a late ERROR"),
        document("other", jobData={}),
        document("strange", queueName="somebodys", jobData=data),
    )
    for text in texts:
        shown = await client.get("/search", params={"q": text})
        assert [each for each in links_of(shown) if each in ("gone", "other", "strange")] == ["gone"], text
    assert "3 documents were looked at" in text_of(shown)
    assert links_of(shown)["gone"] == address("gone")


async def test_a_search_goes_on_where_it_has_stopped(client, scene, monkeypatch):
    monkeypatch.setattr("beeq.web.page.screens.search._MOST_FOUND", 3)
    monkeypatch.setattr(history_module, "_PAGE", 2)
    scene.insert(*(document(f"d{n}", result="needle" if n % 2 else "hay") for n in range(13)))
    at: str | None = "/search?q=needle"
    found: list[str] = []
    while at:
        shown = await client.get(at)
        found += [each for each in links_of(shown) if each.startswith("d")]
        at = links_of(shown).get("Look further back")
    assert found == ["d11", "d9", "d7", "d5", "d3", "d1"]
    assert "to the oldest" in text_of(shown)


async def test_a_search_ends_in_time_and_says_how_far_it_came(client, scene, monkeypatch):
    monkeypatch.setattr(history_module, "_PAGE", 2)
    monkeypatch.setattr(history_module, "_MOST_BYTES", 1)
    scene.insert(*(document(f"d{n}") for n in range(5)))
    shown = await client.get("/search", params={"q": "needle"})
    assert "2 documents were looked at, back to" in text_of(shown)
    assert "before=" in links_of(shown)["Look further back"]


NO_VALUES = (Regex("x"), [1], Code("x"), {"$where": "1"}, {"a": Regex("x")}, "x" * 1200, nested(40))


@pytest.mark.parametrize(
    "place", ["../x", "5", "b.", "b.AAAA", "b.ü", "b." + "A" * 1400, *map(encoded, NO_VALUES)]
)
async def test_an_address_that_says_nonsense_of_the_way_is_refused(client, scene, place):
    scene.insert(document("gone"))
    assert (await client.get("/search", params={"q": "x", "before": place})).status_code == 400
    assert "gone" in links_of(await client.get("/search?q=nosferatu"))


async def test_a_place_that_mongodb_refuses_is_nobody_elses_trouble(client, scene):
    scene.insert(document("gone", _id="x"))
    shown = await client.get("/search", params={"q": "nosferatu", "before": encoded(DatetimeMS(2**62))})
    assert shown.status_code == 200
    assert "gone" in links_of(await client.get("/search?q=nosferatu"))


async def test_a_large_document_is_found_without_being_read_whole(client, scene, monkeypatch):
    monkeypatch.setattr(history_module, "_LARGEST_DECODED", 100)
    scene.insert(document("large", result="needle"))
    shown = await client.get("/search", params={"q": "needle"})
    assert links_of(shown)["large"] == address("large")


async def test_documents_of_other_programs_break_no_screen(client, scene):
    strange = {HOSTILE: HOSTILE, "id": ObjectId(), "n": Decimal128("1.5"), "r": Regex("x"), "big": Int64(7)}
    scene.insert(
        document("a", jobData=strange, result=[strange], error=HOSTILE, notes=strange, status=HOSTILE),
        document(
            "b", jobData=7, result=float("nan"), error={"not": "text"}, createdAt="soon", updatedAt=None
        ),
        {"jobId": 5, "queueName": "webhook"},
        {"queueName": "webhook", "result": "needle"},
    )
    for job_id in ("a", "b"):
        shown = await client.get(address(job_id))
        assert shown.status_code == 200
        assert "<img src=x" not in shown.text
        assert "\u202e" not in shown.text
    for text in ("needle", "onerror", "7"):
        shown = await client.get("/search", params={"q": text})
        assert shown.status_code == 200
        assert "<img src=x" not in shown.text


STRANGE: dict[str, dict[str, Any]] = {
    "number": {"status": Decimal128("1E+6000"), "error": Regex("(a+)+$")},
    "none": {"status": None},
    "object": {"status": {"a": ["<b>"]}, "jobData": {"webhookUrl": Code("f()", {"a": 1})}},
    "array": {"jobData": [{} for _ in range(50_000)], "error": "<b>" * 10_000},
    "types": {"jobData": {"min": MinKey(), "at": Timestamp(1, 2), "of": DBRef("a", 1), "nan": float("nan")}},
}


@pytest.mark.parametrize("name", STRANGE)
async def test_a_document_of_any_types_is_found_and_shown(client, scene, name):
    scene.insert(document("gone", **STRANGE[name]))
    for path in ("/search?q=webhook", "/search?q=gone", address("gone"), f"{address('gone')}/record"):
        response = await client.get(path, follow_redirects=True)
        assert response.status_code == 200
        assert "<b>" not in response.text or "html" not in response.headers["content-type"]


#: An ``_id`` of each type that MongoDB allows, in its order.
IDS: tuple[Any, ...] = (
    *(None, -7, 5, 2.5e9, Int64(2**60), "", "5", "abc", {"a": 1}, {"a": {"b": "x"}}, b"xx"),
    *(ObjectId("0" * 24), ObjectId("5" * 24), False, True, datetime(2024, 1, 1, tzinfo=UTC), Timestamp(1, 2)),
)


@pytest.mark.parametrize("page", [1, 3, 100])
async def test_documents_of_all_types_of_id_are_searched(client, scene, monkeypatch, page):
    monkeypatch.setattr("beeq.web.page.screens.search._MOST_FOUND", page)
    monkeypatch.setattr(history_module, "_PAGE", 2)
    scene.insert(*(document(f"d{n}", _id=each, result="needle") for n, each in enumerate(IDS)))
    at: str | None = "/search?q=needle"
    found: list[str] = []
    while at:
        shown = await client.get(at)
        assert shown.status_code == 200
        found += [each for each in links_of(shown) if each.startswith("d")]
        at = links_of(shown).get("Look further back")
    assert found == [f"d{n}" for n in reversed(range(len(IDS)))]
    assert "to the oldest" in text_of(shown)


async def test_each_job_has_its_own_document_whatever_its_id(client, scene):
    scene.insert(
        *(
            document(f"job-{n}", _id=each, result=f"of {n}")
            for n, each in enumerate([5, "5", ObjectId("5" * 24)])
        ),
        document("5", _id=7, result="of the job 5"),
    )
    for n in range(3):
        shown = text_of(await client.get(address(f"job-{n}")))
        assert [f"of {m}" in shown for m in range(3)] == [m == n for m in range(3)]
    assert "of the job 5" in text_of(await client.get(address("5")))
    assert (await client.get(address("7"))).status_code == 404


async def test_behind_a_very_long_id_no_address_goes_on(client, scene, monkeypatch):
    monkeypatch.setattr("beeq.web.page.screens.search._MOST_FOUND", 1)
    scene.insert(*(document(each, _id=each * 5000, result="needle") for each in "ab"))
    shown = text_of(await client.get("/search?q=needle"))
    assert "No address leads further back" in shown
    assert "to the oldest" not in shown


@pytest.fixture
def as_stored(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes, bytes], None]:
    """``as_stored(text, bytes)``: MongoDB has these bytes where a document has that text."""

    def change(text: bytes, stored: bytes) -> None:
        for name in ("raw_documents", "raw_page"):
            read = getattr(StatusCollection, name)

            async def changed(*given: Any, read: Any = read, **named: Any) -> bytes:
                page: bytes = await read(*given, **named)
                return page.replace(text, stored)

            monkeypatch.setattr(StatusCollection, name, changed)

    return change


async def test_texts_that_are_not_utf_8_are_shown_with_signs(client, scene, as_stored):
    scene.insert(document("gone", error="unkempt", jobData={"unkempt": "unkempt"}), document("other"))
    as_stored(b"unkempt", b"un\xff\xfempt")
    for path in ("/search?q=mpt", address("gone")):
        assert "un\N{REPLACEMENT CHARACTER}" in text_of(await client.get(path))
    assert "other" in text_of(await client.get("/search?q=Nosferatu"))


async def test_a_document_that_is_no_bson_is_said(client, scene, as_stored):
    scene.insert(document("gone", error="unkempt"))
    as_stored(b"\x02error\0\x08", b"\x02error\0\x7f")
    for path in ("/search?q=mpt", address("gone")):
        assert "a document cannot be read" in text_of(await client.get(path))


async def test_a_search_that_is_remembered_holds_no_documents(make_page, scene):
    scene.insert(*(document(f"d{n}", jobData={"film": "Nosferatu"}) for n in range(5)))
    async with client_of(make_page(mongo=scene.url)) as client:
        assert "d4" in text_of(await client.get("/search?q=nosferatu"))
        assert not [each for each in gc.get_objects() if type(each) is history_module.MirroredJob]


async def test_no_address_is_made_of_an_id_that_none_can_have(client, scene):
    scene.insert(document("x" * 200_000), document("other"))
    response = await client.get("/search?q=nosferatu")
    assert "other" in response.text
    assert len(response.content) < 20_000


async def test_hidden_data_show_shapes_of_documents_and_search_no_text(make_page, scene):
    scene.insert(document("gone", result="secret-result", error="ValueError: secret-error"))
    await scene.add("here")
    await scene.write()
    async with client_of(make_page(mongo=scene.url, hides_data=True)) as client:
        pages = [await client.get(address("gone")), await client.get(address("here"))]
        pages.append(await client.get("/search", params={"q": "secret-result"}))
    for shown in pages:
        assert shown.status_code == 200
        for value in ("secret-result", "secret-error", "Nosferatu", "p-1"):
            assert value not in shown.text.replace('value="secret-result"', "").replace(
                "<bdi>secret-result</bdi>", ""
            )


async def test_mongodb_away_is_said_soon_and_the_rest_is_shown(make_page, scene, mongo):
    await scene.add("one")
    await scene.run("webhook-processing", lambda _: "fine", "one")
    async with client_of(make_page(mongo="mongodb://u:hunter2@127.0.0.1:1/x")) as client:
        began_s = time.monotonic()
        shown = await client.get(address("one"))
        first_s = time.monotonic() - began_s
        assert "The mirror cannot be asked" in text_of(shown)
        assert '"fine"' in text_of(shown)
        assert "hunter2" not in shown.text
        assert first_s < 10
        again = await client.get("/search", params={"q": "Nosferatu"})
        assert "The mirror cannot be asked" in text_of(again)
        assert "one" in links_of(again)
        gone = await client.get(address("nothing"))
        assert gone.status_code == 404
        assert "the mirror cannot be asked" in text_of(gone)


async def test_mongodb_that_is_silent_holds_no_screen_up(make_page, scene, monkeypatch):
    monkeypatch.setattr(history_module, "LOOK_S", 0.2)
    await scene.add("one")

    over, ended = asyncio.Event(), asyncio.Semaphore(0)

    async def silent(_reader: Any, writer: Any) -> None:
        await over.wait()
        writer.close()
        ended.release()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with client_of(make_page(mongo=f"mongodb://127.0.0.1:{port}/x")) as client:
        shown = await client.get(address("one"))
        assert "MongoDB did not answer in time" in text_of(shown)
    server.close()
    over.set()
    await ended.acquire()


async def test_the_system_screen_says_how_late_the_mirror_is(client, scene):
    await scene.add("one")
    await scene.add("two")
    shown = text_of(await client.get("/system"))
    assert "Changes that wait 2 of webhook-processing" in shown
    assert "The oldest of them" in shown
    assert "MongoDB answers in" in shown
    await scene.write()
    shown = text_of(await client.get("/system"))
    assert "Changes that wait 0" in shown
    assert "Writers 1" in shown


async def test_the_system_screen_says_when_nobody_writes_the_mirror(client, scene):
    await scene.write()
    await scene.mirror.stop()
    await scene.add("one")
    keys = scene.service.queues["webhook-processing"].keys
    redis = scene.service.queues["webhook-processing"].pipeline
    for name in scene.service.queues:
        outbox = scene.service.queues[name].keys.outbox
        for consumer in await redis.call("XINFO", "CONSUMERS", outbox, "mirror"):
            await redis.call("XGROUP", "DELCONSUMER", outbox, "mirror", consumer[1])
    assert await redis.call("XLEN", keys.outbox) == 1
    assert "nobody writes them to MongoDB" in text_of(await client.get("/system"))


async def test_a_writers_newest_error_is_shown_without_its_secrets(make_page, scene, redis, prefix):
    mirror = Mirror("mongodb://u:hunter2@127.0.0.1:1/x", redis=scene.redis_url, prefix=prefix)
    await scene.add("one")
    mirror.start()
    key = scene.service.queues["ai-generation"].keys.mirror_failure
    try:
        await eventually(lambda: redis.exists(key), 20)
    finally:
        await mirror.stop()
    assert 0 < await redis.pttl(key) <= 3_600_000
    async with client_of(make_page(mongo=scene.url)) as client:
        shown = await client.get("/system")
    assert "Newest error" in text_of(shown)
    assert "MongoDB" in text_of(shown)
    assert "hunter2" not in shown.text


async def test_without_a_mirror_the_system_screen_says_so(make_page, put, monkeypatch):
    monkeypatch.delenv("MONGODB_URI", raising=False)
    await put("mail", {"n": 1})
    async with client_of(make_page()) as client:
        assert "There is none: no queue notes changes for it" in text_of(await client.get("/system"))


async def test_the_environment_says_where_the_mirror_is(make_page, scene, monkeypatch):
    monkeypatch.setenv("MONGODB_URI", scene.url)
    scene.insert(document("gone"))
    async with client_of(make_page()) as client:
        assert (await client.get(address("gone"))).status_code == 200


def test_a_bad_url_of_the_mirror_is_said_when_the_page_is_made(make_page: Callable[..., Any]):
    with pytest.raises(ValueError, match="Mongo URL"):
        make_page(mongo="http://x")
