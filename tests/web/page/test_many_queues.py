"""Very many queues, jobs and workers: each screen shows a bounded part, what is known so far, and the rest."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest

from beeq.client.reader import Stats
from beeq.operations.live_workers import look_at
from beeq.operations.queue_names import queues_with, registered_names
from beeq.protocol.keys import Keys, registry_key
from beeq.web.page import store as store_module
from beeq.web.page import waits
from beeq.web.page.failures import FailureGroup, FailureSurvey
from beeq.web.page.live import Live, Topic
from beeq.web.page.searches import Search, Searches
from beeq.web.page.severity import worst_first
from beeq.web.page.store import Overview, QueueCounts, QueueStore
from beeq.web.responses import Refusal
from tests.web.page.conftest import client_of
from tests.web.page.forms import jobs_of, links_of, text_of


@pytest.fixture
async def many(redis, prefix):
    """``await many(count)``: that many queues with one waiting job each, of which beeq knows."""
    made: list[str] = []

    async def many(count: int) -> list[str]:
        names = [f"q{n:04}" for n in range(count)]
        record = json.dumps({"data": {"n": 1}, "options": {"timestamp": 1, "stacktraces": []}})
        async with redis.pipeline(transaction=False) as pipeline:
            for name in names:
                keys = Keys(prefix, name)
                pipeline.hset(keys.jobs, "1", record)
                pipeline.lpush(keys.waiting, "1")
                made.extend([keys.jobs, keys.waiting])
            pipeline.zadd(registry_key(prefix), {name: n for n, name in enumerate(names)})
            await pipeline.execute()
        return names

    yield many
    for first in range(0, len(made), 1000):
        await redis.delete(*made[first : first + 1000])
    await redis.delete(registry_key(prefix))


def counts(name: str, **numbers: int | None) -> QueueCounts:
    fields = ("waiting", "active", "succeeded", "failed", "delayed", "newest_job", "workers")
    known = {each: numbers.get(each, 0) for each in fields}
    return QueueCounts("bq", name, Stats(**known, oldest_waiting_ms=numbers.get("oldest")))  # type: ignore[arg-type]


async def test_the_overview_has_pages_of_a_hundred_queues(client, many):
    names = await many(230)
    address: str | None = "/"
    found: list[str] = []
    while address:
        shown = await client.get(address)
        rows = [text for text, link in links_of(shown).items() if link.startswith("/q/") and "/" not in text]
        found += [each for each in rows if each in names and each not in found]
        assert "230 queues" in text_of(shown)
        assert shown.text.count("<tr data-queue") + shown.text.count('<tr class="trouble"') <= 100
        address = links_of(shown).get("Next page")
    assert sorted(found) == names


@pytest.mark.parametrize("page", ["0", "-1", "x", "99999", "9" * 50, "٣"])
async def test_a_page_that_is_not_there_is_the_nearest_one(client, many, page):
    await many(3)
    shown = await client.get("/", params={"page": page})
    assert shown.status_code == 200
    assert "q0001" in links_of(shown)


async def test_of_very_many_queues_those_used_last_are_counted(client, many, monkeypatch):
    monkeypatch.setattr(store_module, "MOST_COUNTED", 150)
    await many(400)
    shown = text_of(await client.get("/?page=2"))
    assert "There are 400 queues: the 150 that beeq has used last are counted here" in shown
    assert "q0399" in shown
    assert "q0000" not in shown
    by_name = await client.get("/search", params={"q": "Q0000"})
    assert links_of(by_name)["q0000"] == "/q/q0000"
    assert (await client.get("/q/q0000/waiting")).status_code == 200


async def test_the_first_screen_tells_how_many_are_counted(make_page, many, monkeypatch):
    await many(500)
    page = make_page()
    go_on = asyncio.Event()
    store = page._running().store
    count_one, asked = store._count_one, 0

    async def slow(prefix, name):
        nonlocal asked
        asked += 1
        if asked > 200:
            await go_on.wait()
        return await count_one(prefix, name)

    monkeypatch.setattr(store, "_count_one", slow)
    monkeypatch.setattr(waits, "COUNTS_S", 0.5)
    async with client_of(page) as client:
        shown = await client.get("/")
        assert "of 500 queues are counted so far" in text_of(shown)
        assert 'http-equiv="refresh"' in shown.text
        go_on.set()
        monkeypatch.setattr(waits, "COUNTS_S", 20.0)
        assert 'http-equiv="refresh"' not in (shown := await client.get("/")).text
        assert "500 queues" in text_of(shown)


async def test_names_still_looked_for_are_no_empty_redis(make_page, many, prefix, monkeypatch):
    await many(3)
    go_on = asyncio.Event()

    async def slow(pipeline, registry):
        await go_on.wait()
        return await registered_names(pipeline, registry)

    monkeypatch.setattr("beeq.web.page.store.registered_names", slow)
    monkeypatch.setattr(waits, "NAMES_S", 0.05)
    monkeypatch.setattr(store_module, "_COUNTS_FOR_S", 0.0)
    monkeypatch.setattr(store_module, "_REST", 0)
    async with client_of(make_page()) as client:
        shown = await client.get("/")
        assert "Queues are still being looked for" in text_of(shown)
        assert 'http-equiv="refresh"' in shown.text
        monkeypatch.setattr(waits, "NAMES_S", 20.0)
        go_on.set()
        assert "q0001" in links_of(await client.get("/"))


async def test_counting_rests_nine_times_as_long_as_it_took(valkey, prefix, monkeypatch):
    store = QueueStore(valkey.url, [prefix])
    begun = []

    async def count() -> Overview:
        begun.append(time.monotonic())
        return Overview([], is_complete=True, took_s=5.0)

    monkeypatch.setattr(store, "_count", count)
    monkeypatch.setattr(store_module, "_COUNTS_FOR_S", 0.0)
    for _ in range(5):
        await store.overview()
    assert len(begun) == 1
    await store.close()


async def test_old_counts_are_not_shown_for_ever(valkey, prefix, monkeypatch):
    store = QueueStore(valkey.url, [prefix])
    monkeypatch.setattr(store_module, "_COUNTS_FOR_S", 0.0)
    monkeypatch.setattr(store_module, "_REST", 0)
    monkeypatch.setattr(waits, "COUNTS_S", 0.0)
    first = await store.overview(is_whole=True)
    go_on = asyncio.Event()
    count = store._count

    async def slow() -> Overview:
        await go_on.wait()
        return await count()

    monkeypatch.setattr(store, "_count", slow)
    assert await store.overview() is first, "a moment old, while they are counted again"
    monkeypatch.setattr(store_module, "_OLD_COUNTS_S", -1.0)
    asking = asyncio.create_task(store.overview())
    await asyncio.sleep(0)
    go_on.set()
    assert await asking is not first
    await store.close()


def test_the_worst_queue_comes_first():
    survey = FailureSurvey()
    survey.add(FailureGroup("bq", "failing", "OSError", count=5, recent=5))
    queues = [
        counts("fine", waiting=3, oldest=10),
        counts("late", waiting=3, oldest=400_000, active=1),
        counts("failing", failed=5),
        counts("old", failed=7),
        counts("unserved", waiting=1, oldest=60_000),
        QueueCounts("bq", "broken", None, "WRONGTYPE"),
    ]
    order = [each.name for _, each in worst_first(queues, survey)]
    assert order == ["broken", "unserved", "failing", "late", "old", "fine"]


async def test_open_pages_hear_of_the_worst_queues_alone(valkey, prefix, monkeypatch):
    store = QueueStore(valkey.url, [prefix])
    live = Live(store)
    every = [counts(f"q{n}", waiting=1) for n in range(1000)] + [counts("bad", waiting=1, oldest=99_000)]
    live._note(Overview(every, is_complete=True, known=5000))
    message = json.loads(live._message(Topic(), 0.0, shown=str))
    assert (len(message["queues"]), message["known"]) == (300, 5000)
    assert message["queues"][0]["name"] == "bad"
    of_one = json.loads(live._message(Topic("bq", "q999"), 0.0, shown=str))
    assert [each["name"] for each in of_one["queues"]] == ["q999"]
    await store.close()


async def test_failures_show_two_hundred_kinds_and_say_so(client, put, redis):
    queue = await put("hooks")
    letters = [chr(0x4E00 + n) for n in range(150)]
    for name in ("hooks", "mail"):
        queue = await put(name)
        records = {
            str(n): json.dumps({"data": {}, "options": {"timestamp": 1, "stacktraces": [f"Error: {each}"]}})
            for n, each in enumerate(letters)
        }
        await redis.hset(queue.keys.jobs, mapping=records)
        await redis.sadd(queue.keys.failed, *records)
    shown = await client.get("/failures")
    assert "These are 200 of 300 kinds" in text_of(shown)


async def test_an_id_is_looked_for_in_all_queues_with_progress(make_page, many, put, monkeypatch):
    await many(300)
    await (await put("films")).enqueue({"n": 1}, id="film")
    page = make_page()
    go_on = asyncio.Event()
    asked = 0

    async def slow(*arguments, **options):
        nonlocal asked
        asked += 1
        if asked > 1:
            await go_on.wait()
        return await queues_with(*arguments, **options)

    monkeypatch.setattr("beeq.web.page.store.queues_with", slow)
    monkeypatch.setattr(waits, "SEARCH_S", 0.2)
    async with client_of(page) as client:
        shown = await client.get("/search", params={"q": "film"})
        assert shown.status_code == 200
        assert "Queues asked for this id: 100 of" in text_of(shown)
        assert 'http-equiv="refresh"' in shown.text
        go_on.set()
        monkeypatch.setattr(waits, "SEARCH_S", 20.0)
        found = await client.get("/search", params={"q": "film"})
        assert (found.status_code, found.headers["location"]) == (303, "/q/films/jobs/film")


async def test_a_search_of_a_queue_goes_on_behind_the_screen(make_page, put, redis, monkeypatch):
    queue = await put("mail")
    records = {
        str(n): json.dumps({"data": {"n": n}, "options": {"timestamp": 1, "stacktraces": []}})
        for n in range(600)
    }
    await redis.hset(queue.keys.jobs, mapping=records)
    await redis.lpush(queue.keys.waiting, *records)
    page, go_on = make_page(), asyncio.Event()
    store = page._running().store
    original = store.stats
    calls = 0

    async def slow(prefix, name):
        nonlocal calls
        calls += 1
        if calls == 2:  # the search's
            await go_on.wait()
        return await original(prefix, name)

    monkeypatch.setattr(store, "stats", slow)
    monkeypatch.setattr(waits, "SEARCH_S", 0.05)
    query = {"where": "data.n=599"}
    async with client_of(page) as client:
        shown = await client.get("/q/mail/waiting", params=query)
        assert 'http-equiv="refresh"' in shown.text
        assert "Jobs looked at" in text_of(shown)
        assert "No waiting job matches" not in text_of(shown)
        go_on.set()
        monkeypatch.setattr(waits, "SEARCH_S", 20.0)
        shown = await client.get("/q/mail/waiting", params=query)
        assert jobs_of(shown) == ["599"]
        assert 'http-equiv="refresh"' not in shown.text


async def test_who_asks_for_the_same_search_shares_it():
    searches, go_on, begun = Searches(), asyncio.Event(), 0

    async def work(search: Search) -> None:
        nonlocal begun
        begun += 1
        await go_on.wait()
        search.found.append(1)

    asking = [asyncio.create_task(searches.look("x", work, reader="a")) for _ in range(3)]
    await asyncio.sleep(0)
    go_on.set()
    first, *others = await asyncio.gather(*asking)
    assert begun == 1
    assert all(each is first for each in others)
    assert (first.found, first.has_ended, first.is_whole) == ([1], True, True)
    await searches.close()


async def test_searches_are_bounded_in_number_and_time(monkeypatch):
    monkeypatch.setattr(waits, "SEARCH_S", 0.0)
    searches = Searches()

    async def work(_search: Search) -> None:
        await asyncio.Event().wait()

    for n in range(4):
        assert not (await searches.look(n, work, reader=str(n))).has_ended
    with pytest.raises(Refusal):
        await searches.look("one more", work, reader="one more")
    await searches.close()
    monkeypatch.setattr("beeq.web.page.searches.LONGEST_S", 0.01)
    monkeypatch.setattr(waits, "SEARCH_S", 20.0)
    search = await searches.look("again", work, reader="a")
    assert (search.has_ended, search.is_whole) == (True, False)
    for n in range(100):
        await searches.look(n, work, reader="a")
    assert len(searches._searches) <= 31
    await searches.close()


async def test_one_reader_leaves_a_search_to_another(monkeypatch):
    monkeypatch.setattr(waits, "SEARCH_S", 0.0)
    searches, may_end = Searches(), asyncio.Event()

    async def work(_search: Search) -> None:
        await may_end.wait()

    for n in range(2):
        await searches.look(n, work, reader="a")
    with pytest.raises(Refusal, match="2 of them yours"):
        await searches.look(2, work, reader="a")
    assert not (await searches.look(0, work, reader="a")).has_ended, "their own go on"
    for reader in ("b", "c"):
        await searches.look(reader, work, reader=reader)
    may_end.set()
    monkeypatch.setattr(waits, "SEARCH_S", 20.0)
    for n in range(2):
        await searches.look(n, work, reader="a")
    await searches.look(2, work, reader="a")
    await searches.close()
    assert searches._readers == {}


@pytest.mark.parametrize("reading", ["sessions", "no cookies", "programs"])
async def test_readers_are_told_apart_by_session_or_address(make_page, put, monkeypatch, reading):
    await put("mail", {"n": 1})
    page = make_page(token="t" * 20) if reading == "programs" else make_page(auth=lambda _: "look")
    go_on = asyncio.Event()
    store = page._running().store
    overview = store.overview

    async def slow(*, is_whole: bool = False) -> Overview:
        await go_on.wait()
        counted: Overview = await overview(is_whole=is_whole)
        return counted

    monkeypatch.setattr(store, "overview", slow)
    monkeypatch.setattr(waits, "SEARCH_S", 0.1)

    async def status(client: httpx.AsyncClient, text: str) -> int:
        if reading == "no cookies":
            client.cookies.clear()
        return (await client.get("/search", params={"q": text})).status_code

    def client_at(address: str) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app=page, client=(address, 1))
        headers = {"authorization": f"Bearer {'t' * 20}"} if reading == "programs" else {}
        return httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers)

    async with (
        client_at("127.0.0.1") as greedy,
        client_at("127.0.0.1" if reading == "sessions" else "127.0.0.2") as other,
    ):
        for client in (greedy, other):
            await client.get("/q/mail")  # which sets the cookie
        assert [await status(greedy, f"text {n}") for n in range(4)] == [200, 200, 503, 503]
        assert await status(other, "mine") == 200
        go_on.set()


async def test_a_search_that_fails_says_so(monkeypatch):
    searches = Searches()

    async def work(_search: Search) -> None:
        raise ZeroDivisionError

    search = await searches.look("x", work, reader="a")
    assert "Internal error" in search.problem
    assert not search.is_whole
    await searches.close()


async def test_a_long_record_is_left_out_of_a_search_and_counted(client, put):
    await put("big", {"blob": "x" * 1_000_000, "to": "anna"}, {"to": "anna"})
    shown = text_of(await client.get("/search", params={"q": "anna"}))
    assert "1 job was not looked into" in shown
    filtered = await client.get("/q/big/waiting", params={"text": "anna"})
    assert jobs_of(filtered) == ["2"]
    assert "1 job was not looked into" in text_of(filtered)


async def test_workers_come_in_pages_of_fifty_queues(client, many, redis, prefix):
    names = await many(60)
    for name in names:
        keys = Keys(prefix, name)
        await redis.lmove(keys.waiting, keys.active)
    first = await client.get("/workers")
    assert "Page 1 of 2: 60 queues" in text_of(first)
    second = await client.get(links_of(first)["Next page"])
    shown = [name for each in (first, second) for name in names if name in links_of(each)]
    assert sorted(shown) == names
    for name in names:
        await redis.delete(Keys(prefix, name).active)


async def test_workers_not_looked_at_yet_are_said(make_page, many, redis, prefix, monkeypatch):
    (name,) = await many(1)
    keys = Keys(prefix, name)
    await redis.lmove(keys.waiting, keys.active)
    page, go_on = make_page(), asyncio.Event()

    async def slow(*arguments):
        await go_on.wait()
        return await look_at(*arguments)

    monkeypatch.setattr("beeq.web.page.store.look_at", slow)
    monkeypatch.setattr(waits, "ACTIVITY_S", 0.0)
    async with client_of(page) as client:
        shown = await client.get("/workers")
        assert "1 queue is still being looked at" in text_of(shown)
        go_on.set()
        monkeypatch.setattr(waits, "ACTIVITY_S", 20.0)
        assert "Node workers" in text_of(await client.get("/workers"))
    await redis.delete(keys.active)
