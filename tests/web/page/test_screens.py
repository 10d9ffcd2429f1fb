"""What the screens show, and under which addresses; nothing here acts."""

from __future__ import annotations

import asyncio
import json

import pytest

from beeq.web.page.addresses import Addresses, segment, text_of_segment
from tests.web.page.conftest import client_of
from tests.web.page.forms import jobs_of, links_of, text_of

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a/b",
    "..",
    ".",
    "~..",
    "a?b=c#d",
    "{{7*7}}{% raise %}",
    "\u202egnp.exe",
    "x\r\ny\x1b[31m",
    "%2e%2f",
    "ü ß 日本 ",
]


async def test_an_empty_redis_says_how_the_first_queue_is_made(client):
    shown = await client.get("/")
    assert shown.status_code == 200
    assert "Redis holds no queue" in text_of(shown)


async def test_the_overview_has_each_queue_with_its_counts(client, put, prefix):
    await put("mail", {"n": 1}, {"n": 2})
    await put("films", {"n": 1}, delay_until="1h")
    shown = await client.get("/")
    assert links_of(shown)["mail"] == "/q/mail"
    assert links_of(shown)["films"] == "/q/films"
    assert "2 queues 2 0 1 0 0" in text_of(shown)
    assert "Nothing needs a person" in text_of(shown)


async def test_a_queue_that_node_alone_has_touched_is_shown(client, redis, prefix, request):
    key = f"{prefix}:node"
    record = {"data": {"from": "Node"}, "options": {"timestamp": 1000, "stacktraces": []}}
    await redis.hset(f"{key}:jobs", "1", json.dumps({**record, "status": "created", "progress": 0}))
    await redis.lpush(f"{key}:waiting", "1")
    try:
        assert "no worker takes its jobs" in text_of(await client.get("/"))
        assert '{"from":"Node"}' in text_of(await client.get("/q/node/waiting"))
    finally:
        await redis.delete(f"{key}:jobs", f"{key}:waiting")


async def test_a_queue_shows_the_first_state_that_has_jobs(client, put):
    await put("later", {"n": 1}, delay_until="1h")
    assert "Run now" in text_of(await client.get("/q/later"))
    assert "No waiting jobs" in text_of(await client.get("/q/nowhere"))
    assert (await client.get("/q/later/lost")).status_code == 404


@pytest.mark.parametrize("state", ["waiting", "delayed"])
async def test_pages_follow_each_other_in_the_order_of_running(client, put, state):
    queue = await put("many")
    for n in range(120):
        await queue.enqueue({"n": n}, delay_until=f"{n + 60}m" if state == "delayed" else None)
    address: str | None = f"/q/many/{state}"
    ids: list[str] = []
    while address:
        shown = await client.get(address)
        ids += jobs_of(shown)
        address = links_of(shown).get("Next page")
    assert ids == [str(n) for n in range(1, 121)]


async def test_finished_jobs_come_in_pages_each_once(client, redis, prefix, put):
    queue = await put("done")
    records = {
        str(n): json.dumps({"data": {}, "options": {"timestamp": 1, "stacktraces": []}}) for n in range(700)
    }
    await redis.hset(queue.keys.jobs, mapping=records)
    await redis.sadd(queue.keys.succeeded, *records)
    address: str | None = "/q/done/succeeded"
    ids: list[str] = []
    while address:
        shown = await client.get(address)
        ids += jobs_of(shown)
        address = links_of(shown).get("Next page")
    assert sorted(ids, key=int) == list(records)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ({"where": "data.user=7"}, ["a"]),
        ({"where": "data.user=7 & data.kind=x"}, ["a"]),
        ({"where": 'data.user:="8"'}, ["b"]),
        ({"text": "NEEDLE"}, ["b"]),
        ({"since": "1h"}, ["a", "b"]),
        ({"older": "1h"}, []),
    ],
)
async def test_filters_choose_among_a_queues_jobs(client, put, query, wanted):
    queue = await put("mail")
    await queue.enqueue({"user": 7, "kind": "x"}, id="a")
    await queue.enqueue({"user": "8", "note": "a needle"}, id="b")
    shown = await client.get("/q/mail/waiting", params=query)
    assert [each for each in ("a", "b") if each in links_of(shown)] == wanted


@pytest.mark.parametrize(
    "query", [{"since": "soon"}, {"where": "user"}, {"where": "x.y=1"}, {"where": "data.x:=}"}]
)
async def test_a_filter_that_cannot_be_is_explained_and_shows_nothing(client, put, query):
    await put("mail", {"n": 1})
    shown = await client.get("/q/mail/waiting", params=query)
    assert shown.status_code == 200
    assert 'role="alert"' in shown.text
    assert "1" not in links_of(shown)


async def test_a_failed_job_shows_error_attempts_trace_and_exact_data(client, fail):
    big = 2**70
    await fail("hooks", {"7": ValueError("no such film")}, data={"film": big, "deep": [{"a": None}]})
    shown = text_of(await client.get("/q/hooks/jobs/7"))
    for text in ("ValueError: no such film", "Newest trace", "Traceback", str(big), "after it was made"):
        assert text in shown
    saved = await client.get("/q/hooks/jobs/7/data")
    assert saved.json() == {"film": big, "deep": [{"a": None}]}
    assert saved.headers["content-disposition"] == 'attachment; filename="data.json"'
    assert saved.headers["content-type"].startswith("text/plain")


async def test_a_job_that_succeeded_shows_its_result(client, put):
    queue = await put("sums")
    queue.process(lambda _: {"sum": 5})
    job = await queue.enqueue({"n": 1})
    await job.result()
    shown = text_of(await client.get(f"/q/sums/jobs/{job.id}"))
    assert "Result" in shown
    assert "sum" in shown
    assert (await client.get(f"/q/sums/jobs/{job.id}/result")).json() == {"sum": 5}


async def test_workers_show_their_places_and_running_jobs(client, put):
    queue = await put("films")
    begun, end = asyncio.Event(), asyncio.Event()

    async def handler(job):
        begun.set()
        await end.wait()

    queue.process(handler, concurrency=3)
    job = await queue.enqueue({"n": 1}, id="a/b")
    await begun.wait()
    async with asyncio.timeout(15):
        while "a/b" not in links_of(shown := await client.get("/workers")):  # noqa: ASYNC110 - no signal
            await asyncio.sleep(0.05)
    assert "1 of 3 places taken" in text_of(shown)
    assert links_of(shown)["a/b"] == "/q/films/jobs/a%2Fb"
    assert "last beat was" in text_of(await client.get("/q/films/jobs/a%2Fb"))
    end.set()
    await job.result()


async def test_jobs_of_node_workers_are_shown_among_workers(client, put, redis):
    queue = await put("node", {"n": 1})
    await redis.lmove(queue.keys.waiting, queue.keys.active)
    async with asyncio.timeout(10):
        while "Node workers" not in text_of(shown := await client.get("/workers")):  # noqa: ASYNC110 - no signal
            await asyncio.sleep(0.05)
    assert "1 job that no beeq worker has claimed" in text_of(shown)
    await redis.lmove(queue.keys.active, queue.keys.waiting)


async def test_without_any_worker_the_screen_says_so(client):
    assert "No beeq worker is alive" in text_of(await client.get("/workers"))


async def test_a_job_says_why_it_is_where_it_is(client, put):
    await put("mail", {"n": 1}, {"n": 2})
    shown = text_of(await client.get("/q/mail/jobs/2"))
    assert "Why it is there" in shown
    assert "no worker" in shown.lower()
    assert "1 job runs before it" in shown


async def test_a_job_that_is_not_there_is_404(client, put):
    await put("mail", {"n": 1})
    for address in (
        "/q/mail/jobs/nobody",
        "/q/mail/jobs/nobody/data",
        "/q/mail/jobs/1/result",
        "/q/mail/jobs/1/x",
    ):
        assert (await client.get(address)).status_code == 404
    assert (await client.get("/q/mail/jobs/%ff")).status_code == 404


@pytest.mark.parametrize("name", HOSTILE)
async def test_odd_names_and_ids_are_text_and_are_found(client, put, name):
    queue = await put(name)
    await queue.enqueue({name: name, "n": [name]}, id=name)
    overview = await client.get("/")
    address = next(link for link in links_of(overview).values() if link.startswith("/q/"))
    listed = await client.get(address)
    (job_address,) = {link for link in links_of(listed).values() if "/jobs/" in link}
    shown = await client.get(job_address)
    for each in (overview, listed, shown):
        assert each.status_code == 200
        assert "<script>alert" not in each.text
        assert "<img src=x" not in each.text
        assert "\u202e" not in each.text
        assert "\x1b" not in each.text
    assert "Duplicate" in text_of(shown)


@pytest.mark.parametrize("text", [*HOSTILE, "~", "~~.", "~a", "a b&c=d+e"])
def test_every_text_is_one_segment_and_comes_back(text):
    encoded = segment(text)
    assert "/" not in encoded
    assert encoded not in (".", "..")
    assert text_of_segment(encoded) == text


@pytest.mark.parametrize(
    "address", ["//evil.example", "https://evil.example", "/\\evil.example", "", "/\n/x", "x"]
)
def test_an_address_elsewhere_is_none_of_the_pages(address):
    assert not Addresses("", ("bq",), "bq").is_own(address)
    assert not Addresses("/queues", ("bq",), "bq").is_own("/other")


async def test_large_values_are_cut_and_can_be_saved_whole(client, put):
    await put("big", {"blob": "x" * 1_000_000, "list": list(range(100_000))})
    shown = await client.get("/q/big/jobs/1")
    assert len(shown.content) < 200_000
    assert "more" in text_of(shown)
    assert len((await client.get("/q/big/jobs/1/data")).content) > 1_500_000


async def test_jobs_with_large_data_come_in_shorter_pages(client, put):
    await put("big", *({"blob": "x" * 900_000, "n": n} for n in range(20)))
    first = await client.get("/q/big/waiting")
    ids = jobs_of(first)
    assert 0 < len(ids) < 20
    second = await client.get(links_of(first)["Next page"])
    assert str(int(ids[-1]) + 1) in links_of(second)


async def test_an_id_leads_to_its_job_in_whichever_queue(client, put):
    queue = await put("mail", {"n": 1})
    await queue.enqueue({}, id="a/b <i>")
    await put("films", {"n": 1})
    found = await client.get("/search", params={"q": " a/b <i> "})
    assert (found.status_code, found.headers["location"]) == (303, "/q/mail/jobs/a%2Fb%20%3Ci%3E")
    several = await client.get("/search", params={"q": "1"})
    assert {"mail", "films"} <= links_of(several).keys()


async def test_text_is_found_in_data_and_errors(client, put, fail):
    await put("mail", {"to": "anna@example.com"}, {"to": "bob@example.com"})
    await fail("hooks", {"h": ValueError("Anna is away")})
    shown = text_of(await client.get("/search", params={"q": "anna"}))
    assert "anna@example.com" in shown
    assert "Anna is away" in shown
    assert "bob@" not in shown
    assert "No job with this text" in text_of(await client.get("/search", params={"q": "nobody"}))


async def test_the_system_screen_warns_of_eviction(own_valkey, make_page):
    from beeq.web import Policy, dashboard

    with own_valkey.sync_client() as redis:
        redis.config_set("maxmemory", "100mb")
        redis.config_set("maxmemory-policy", "allkeys-lru")
    async with (
        (page := dashboard(redis=own_valkey.url, policy=Policy())).running(),
        client_of(page) as client,
    ):
        shown = text_of(await client.get("/system"))
    assert "allkeys-lru" in shown
    assert "set maxmemory-policy to noeviction" in shown


async def test_the_system_screen_says_what_was_not_saved(client, monkeypatch):
    async def info(_home):
        return {"aof_enabled": "1", "aof_last_write_status": "err", "rdb_last_bgsave_status": "ok"}

    monkeypatch.setattr("beeq.web.page.screens.system._info", info)
    shown = text_of(await client.get("/system"))
    assert "the append-only file could not be written" in shown
    assert "snapshot" not in shown


async def test_with_redis_away_every_screen_says_so_soon(own_valkey):
    from beeq.web import Policy, dashboard

    page = dashboard(redis=own_valkey.url, policy=Policy())
    async with page.running(), client_of(page) as client:
        assert (await client.get("/")).status_code == 200
        own_valkey.stop()
        async with asyncio.timeout(40):
            shown = await client.get("/q/mail")
    assert shown.status_code == 503
    assert "Redis does not answer" in text_of(shown)
    assert "Traceback" not in shown.text


async def test_a_key_of_a_wrong_type_is_a_queues_problem_not_the_pages(client, put, redis):
    await put("mail", {"n": 1})
    bad = await put("bad", {"n": 1})
    await redis.delete(bad.keys.waiting)
    await redis.set(bad.keys.waiting, "x")
    try:
        shown = await client.get("/")
        assert "cannot be read" in text_of(shown)
        assert "mail" in links_of(shown)
        refused = await client.get("/q/bad/waiting")
        assert refused.status_code == 503
        assert "WRONGTYPE" in text_of(refused)
    finally:
        await redis.delete(bad.keys.waiting, bad.keys.jobs)


async def test_hidden_data_shows_shapes_and_no_values(make_page, fail):
    await fail(
        "hooks", {"7": ValueError("secret-error")}, data={"user": "secret-name", "n": [41, 42], "ok": True}
    )
    async with client_of(make_page(hides_data=True)) as client:
        for address in (
            "/",
            "/q/hooks/failed",
            "/q/hooks/jobs/7",
            "/failures",
            "/search?q=secret",
            "/system",
        ):
            shown = await client.get(address)
            assert shown.status_code == 200
            assert "secret-" not in shown.text, address
        text = text_of(await client.get("/q/hooks/jobs/7"))
        assert "text of 11" in text
        assert "ValueError: (hidden)" in text
        assert (await client.get("/q/hooks/jobs/7/data")).status_code == 404
        guess = await client.get("/q/hooks/failed?where=data.user=secret-name")
        assert "7" not in links_of(guess)


@pytest.mark.parametrize(
    ("trace", "shown"),
    [
        ("anna_1970", "(hidden)"),  # as Node throws it
        ("anna_1970: unknown\n    at f (x.js:1)", "(hidden)"),
        ("Anna: unknown", "(hidden)"),
        ("shop.errors.PaymentError: anna_1970", "shop.errors.PaymentError: (hidden)"),
        ("ConnectTimeout", "ConnectTimeout: (hidden)"),
    ],
)
async def test_hidden_data_hides_a_first_word_that_is_no_type(make_page, put, redis, trace, shown):
    queue = await put("hooks")
    record = {"data": {}, "options": {"stacktraces": [trace]}, "status": "failed", "progress": 0}
    await redis.hset(queue.keys.jobs, "7", json.dumps(record))
    await redis.sadd(queue.keys.failed, "7")
    async with client_of(make_page(hides_data=True)) as client:
        for address in ("/", "/failures", "/q/hooks/failed", "/q/hooks/jobs/7"):
            answer = await client.get(address)
            assert answer.status_code == 200
            assert "nna" not in answer.text, address
        assert shown in text_of(answer)


async def test_a_very_long_reason_of_a_pause_is_cut(client, put, redis):
    queue = await put("mail", {"n": 1})
    await redis.set(queue.keys.paused, json.dumps({"reason": "r" * 100_000}))
    for address in ("/", "/q/mail"):
        shown = await client.get(address)
        assert shown.status_code == 200
        assert "rrr" in shown.text
        assert len(shown.text) < 30_000


async def test_another_prefix_stands_in_the_address(make_page, put, prefix):
    await put("mail", {"n": 1})
    async with client_of(make_page(prefixes=["other-prefix", prefix])) as client:
        link = links_of(await client.get("/"))["mail"]
        assert link == f"/q/mail?prefix={prefix}"
        listed = await client.get(link)
        assert links_of(listed)["1"] == f"/q/mail/jobs/1?prefix={prefix}"
        assert (await client.get(links_of(listed)["1"])).status_code == 200
        assert (await client.get("/q/mail?prefix=secret")).status_code == 404


async def test_mounted_every_address_begins_with_the_base(make_page, put):
    await put("mail", {"n": 1})
    page = make_page(base_path="/admin/queues/")
    async with client_of(page) as client:
        shown = await client.get("/admin/queues/")
        addresses = [*links_of(shown).values()]
        assert addresses
        assert all(each.startswith(("/admin/queues/", "#")) for each in addresses)
        assert (await client.get(links_of(shown)["mail"])).status_code == 200
        assert (await client.get("/admin/queues/static/page.css")).status_code == 200


async def test_head_has_no_body_and_others_are_not_allowed(client):
    assert (await client.head("/")).content == b""
    assert (await client.put("/")).status_code == 405
    assert (await client.get("/q/mail/act")).status_code == 405


async def test_no_screen_may_be_framed_kept_or_load_from_elsewhere(client, put):
    await put("mail", {"n": 1})
    for address in (
        "/",
        "/q/mail",
        "/q/mail/jobs/1",
        "/q/mail/jobs/1/data",
        "/failures",
        "/system",
        "/search",
        "/none",
    ):
        headers = (await client.get(address)).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


async def test_screens_have_no_inline_script_or_style(client, put):
    await put("mail", {"n": 1})
    for address in ("/", "/q/mail", "/q/mail/jobs/1", "/failures", "/workers", "/system", "/search"):
        text = (await client.get(address)).text
        assert text.count("<script") == text.count("<script src=") == 1
        assert " style=" not in text
        assert "<style" not in text
        assert " onclick" not in text
        assert "http://" not in text.replace("http://localhost", "")


async def test_a_wrong_url_is_said_when_the_page_is_made():
    from beeq.web import Policy, dashboard

    with pytest.raises(ValueError, match="must begin with"):
        dashboard(redis="http://x", policy=Policy())
    with pytest.raises(TypeError, match="prefixes"):
        dashboard(redis="redis://x", prefixes="bq", policy=Policy())
    with pytest.raises(ValueError, match="base_path"):
        dashboard(redis="redis://x", base_path="queues", policy=Policy())


async def test_a_preview_leaves_out_what_its_row_shows(client, put):
    queue = await put("hooks", {"id": "other", "createdAt": "2026"})
    data = {"id": "own", "createdAt": "2026-01-01T00:00:00Z", "webhookUrl": "https://example.com"}
    await queue.enqueue(data, id="own")
    shown = text_of(await client.get("/q/hooks/waiting"))
    assert '{"webhookUrl":"https://example.com"}' in shown
    assert '{"id":"other","createdAt":"2026"}' in shown


async def test_jobs_of_a_dead_worker_are_told_from_new_ones(client, put, redis):
    queue = await put("imports", {"n": 1})
    await redis.lmove(queue.keys.waiting, queue.keys.active)
    await redis.hset(queue.keys.claims, "1", "gone:1")
    async with asyncio.timeout(10):
        while "the worker has died" not in text_of(await client.get("/workers")):  # noqa: ASYNC110 - no signal
            await asyncio.sleep(0.05)
    await redis.hdel(queue.keys.claims, "1")
    await redis.lmove(queue.keys.active, queue.keys.waiting)
