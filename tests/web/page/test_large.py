"""Large records, and those of strangers: bounded on every screen, and what is not shown can be saved."""

from __future__ import annotations

import json

import pytest

from beeq.web.page import words
from beeq.web.page.live import Live, Topic
from beeq.web.page.screens import acts
from beeq.web.page.store import LONGEST_LISTED, LONGEST_SHOWN, QueueStore
from tests.web.page.conftest import client_of
from tests.web.page.forms import form_with, jobs_of, links_of, text_of

CONTROL = "\x00\x07\x1b[31m\x7f\x9b\u202e"
UNSAFE = set(CONTROL) - set("[31m")


def nested(levels: int, inner: object) -> object:
    for _ in range(levels):
        inner = {"a": inner, "b": ["<\x01" * 500] * 50}
    return inner


@pytest.mark.parametrize(
    "value",
    [
        nested(58, "<" * 1_000_000),
        {f"{n}" + "\x01" * 5000: "\x01" * 5000 for n in range(1500)},
        list(range(1_000_000)),
        [10**4000] * 1000,
        nested(500, [[[]]]),
    ],
    ids=["levels", "names", "entries", "numbers", "depth"],
)
def test_a_tree_is_bounded_in_values_characters_and_depth(value):
    tree = words.json_tree(value)
    assert len(tree) < 1_000_000
    assert "more" in tree
    assert tree.count("<details") == tree.count("</details>") <= words.MOST_NODES
    assert tree.count("<li>") == tree.count("</li>") <= 2 * words.MOST_NODES
    assert "\x01" not in tree


def test_a_job_of_1_mb_is_shown_up_to_where_it_says():
    rows = [{"id": n, "name": f"name {n}", "tags": ["a", "b"]} for n in range(20_000)]
    tree = words.json_tree({"text": "x" * 1_000_000, "rows": rows})
    assert "998\u202f000 more characters" in tree
    assert "name 200" in tree
    assert "more</em>" in tree
    assert len(tree) < 300_000


def test_a_shape_is_bounded_whatever_the_value():
    def wide(levels):
        return {str(n): wide(levels - 1) if levels else n for n in range(30)}

    assert len(json.dumps(words.shape(wide(3)))) < 100_000


async def test_a_record_too_long_to_be_shown_can_be_saved(client, put, redis):
    queue = await put("big")
    data = {"blob": "x" * LONGEST_SHOWN, "n": 2**70}
    job = await queue.enqueue(data, id="b")
    shown = await client.get("/q/big/jobs/b")
    assert shown.status_code == 200
    assert len(shown.content) < 20_000
    assert "too much to be shown" in text_of(shown)
    saved = await client.get(links_of(shown)["Save the record"])
    assert saved.text == await redis.hget(queue.keys.jobs, job.id)
    assert saved.headers["content-disposition"] == 'attachment; filename="record.json"'
    assert (await client.get("/q/big/jobs/b/data")).status_code == 404
    assert (await client.head("/q/big/jobs/b/record")).content == b""


async def test_a_result_too_long_to_be_shown_can_be_saved(client, put):
    queue = await put("big")
    queue.process(lambda _: {"text": "y" * LONGEST_SHOWN})
    job = await queue.enqueue({"n": 1})
    await job.result()
    shown = await client.get(f"/q/big/jobs/{job.id}")
    assert len(shown.content) < 20_000
    assert "too much to be shown" in text_of(shown)
    saved = await client.get(f"/q/big/jobs/{job.id}/result")
    assert saved.json() == {"text": "y" * LONGEST_SHOWN}


async def test_what_is_too_much_to_be_saved_is_refused(client, put, monkeypatch):
    monkeypatch.setattr("beeq.web.page.screens.job.LONGEST_SAVED", 1000)
    await put("big", {"blob": "x" * 5000})
    refused = await client.get("/q/big/jobs/1/record")
    assert refused.status_code == 413
    assert "beeq show" in text_of(refused)


async def test_files_that_are_saved_at_once_are_bounded_together(make_page, put, monkeypatch):
    monkeypatch.setattr("beeq.web.page.store._MOST_SAVED", 8000)
    await put("big", {"blob": "x" * 5000})
    page = make_page()
    async with client_of(page) as client:
        for _ in range(3):  # what was sent is held no longer
            assert (await client.get("/q/big/jobs/1/record")).status_code == 200
        page._running().store.held_bytes.add(5000)
        assert (await client.get("/q/big/jobs/1/record")).status_code == 503


async def test_a_long_record_is_listed_without_being_read(client, put):
    await put("big", {"blob": "x" * LONGEST_LISTED}, {"n": 1})
    shown = await client.get("/q/big/waiting")
    assert jobs_of(shown) == ["1", "2"]
    assert "bytes was not read" in text_of(shown)
    assert '{"n":1}' in text_of(shown)


async def test_very_many_lines_of_attempts_are_not_shown(client, fail, redis):
    queue = await fail("hooks", {"7": ValueError("no")})
    line = await redis.hget(queue.keys.attempts, "7")
    for count in (300, 200_000):
        await redis.hset(queue.keys.attempts, "7", "\n".join([line] * count))
        shown = await client.get("/q/hooks/jobs/7")
        assert shown.status_code == 200
        assert len(shown.content) < 200_000


async def test_no_screen_has_control_characters_of_an_error(client, fail):
    await fail("hooks", {"7": ValueError(f"no {CONTROL} way")})
    listed = await client.get("/failures")
    kind = links_of(listed)["ValueError: no \\x00\\x07\\x1b[31m\\x7f\\x9b\\u202e way"]
    for address in ("/", "/failures", kind, "/q/hooks/failed", "/q/hooks/jobs/7", f"{kind}&text=%1b"):
        shown = await client.get(address)
        assert shown.status_code == 200
        assert not set(shown.text) & UNSAFE, address
    assert jobs_of(await client.get(kind)) == ["7"]
    asks = await form_with(listed, "Remove").press(client, "Remove")
    done = await form_with(asks, "Remove 1 job").press(client, "Remove 1 job")
    assert "1 job removed" in text_of(done)


async def test_a_long_record_tells_its_state_alone_to_open_pages(valkey, put, prefix):
    queue = await put("big")
    await queue.enqueue({"blob": "x" * 100_000}, id="b")
    store = QueueStore(valkey.url, [prefix])
    live = Live(store)
    try:
        assert await live._look_at_job(Topic(prefix, "big", "b")) == ("queued", None)
        assert await live._look_at_job(Topic(prefix, "big", "nobody")) == ("gone", None)
    finally:
        await live.close()
        await store.close()


async def test_too_long_a_record_is_neither_retried_nor_copied(client, fail, monkeypatch):
    queue = await fail("big", {"b": ValueError("no"), "small": ValueError("no")})
    details = await queue.inspect_job("b")
    monkeypatch.setattr(acts, "LONGEST_PARSED", details.record_bytes - 1)
    await queue.close()
    shown = await client.get("/q/big/jobs/b")
    assert "Not duplicated: its record is longer than" in text_of(
        await form_with(shown, "Duplicate").press(client, "Duplicate")
    )
    assert "0 jobs retried; 1 not: longer than" in text_of(
        await form_with(shown, "Retry").press(client, "Retry")
    )
    assert (await client.get("/q/big/failed")).text.count('name="id"') == 2


async def test_ids_too_long_for_an_address_are_cut_everywhere(client, put, redis):
    queue = await put("films")
    for n in range(10):
        job_id = f"{n}{'x' * 200_000}"
        await redis.hset(queue.keys.jobs, job_id, '{"data":"needle","options":{},"status":"created"}')
        await redis.lpush(queue.keys.waiting, job_id)
    for path in ("/q/films/waiting", "/search?q=needle"):
        response = await client.get(path)
        assert "9xxx" in response.text
        assert len(response.content) < 100_000
    await queue.destroy()
