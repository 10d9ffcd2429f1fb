"""What the doctor finds, on the page: at once, and after a look at the place of every job."""

from __future__ import annotations

import asyncio

from beeq.operations.diagnosis.findings import Finding
from beeq.queue import Queue
from beeq.web.page.sources import checkups as checkups_module
from tests.support.waiting import eventually
from tests.web.page.conftest import client_of
from tests.web.page.forms import links_of, text_of


async def test_the_system_screen_says_what_a_few_commands_tell(client, put, redis):
    queue = await put("mail")
    await redis.zadd(queue.keys.delayed, {"1": 1000})
    await redis.hset(queue.keys.jobs, "1", '{"data":{},"options":{"timestamp":1,"stacktraces":[]}}')
    shown = text_of(await client.get("/system"))
    assert "delayed jobs are overdue" in shown
    assert "Look at every job's place" in shown


async def test_a_look_at_every_place_finds_ghosts_and_what_mends_them(client, put, redis):
    queue = await put("mail", {"n": 1})
    await redis.lpush(queue.keys.waiting, "<ghost>")
    shown = await client.get("/system/checkup")
    while "Look again" not in text_of(shown):
        shown = await client.get("/system/checkup")
    assert "1 id has no record, in waiting: <ghost>" in text_of(shown)
    assert "beeq doctor --fix" in text_of(shown)
    assert "<ghost>" not in shown.text
    assert await redis.lrange(queue.keys.waiting, 0, -1) == ["<ghost>", "1"]
    assert links_of(shown)["mail"] == "/q/mail"
    assert "The last look at every job's place" in text_of(await client.get("/system"))
    await redis.lrem(queue.keys.waiting, 1, "<ghost>")


async def test_a_look_goes_on_while_screens_show_how_far_it_is(client, put, monkeypatch):
    await put("mail", {"n": 1})
    goes_on, asked = asyncio.Event(), []

    async def diagnose(_queue: Queue, *, on_looked, most_ids) -> list[Finding]:
        asked.append(most_ids)
        on_looked(70)
        await goes_on.wait()
        return []

    monkeypatch.setattr(Queue, "diagnose", diagnose)
    shown = await client.get("/system/checkup")
    assert "0 of 1 queues, 70 ids; now mail" in text_of(shown)
    assert 'http-equiv="refresh"' in shown.text
    again = await client.get("/system/checkup", params={"again": "1"}, follow_redirects=True)
    assert "70 ids; now mail" in text_of(again)
    goes_on.set()
    ended = await client.get("/system/checkup")
    assert "Nothing is wrong" in text_of(ended)
    assert asked == [checkups_module.MOST_IDS]


async def test_a_look_that_takes_too_long_names_what_is_left(client, put, monkeypatch):
    await put("a", {"n": 1})
    await put("b", {"n": 1})
    monkeypatch.setattr(checkups_module, "LONGEST_S", 2.0)
    begun: list[str] = []

    async def diagnose(queue: Queue, **_: object) -> list[Finding]:
        begun.append(queue.name)
        if len(begun) > 1:
            await asyncio.Event().wait()
        return []

    monkeypatch.setattr(Queue, "diagnose", diagnose)

    async def ended() -> str:
        text = text_of(await client.get("/system/checkup"))
        return text if "Look again" in text else ""

    text = await eventually(ended)
    assert "1 of 2 queues" in text
    assert f"There was no time for {begun[1]}" in text
    assert "Nothing is wrong" not in text


async def test_looks_follow_each_other_with_a_rest_between(client, put, monkeypatch):
    await put("mail", {"n": 1})
    looks = 0

    async def diagnose(_queue: Queue, **_: object) -> list[Finding]:
        nonlocal looks
        looks += 1
        return []

    monkeypatch.setattr(Queue, "diagnose", diagnose)
    for _ in range(3):
        await client.get("/system/checkup", params={"again": "1"})
    assert looks == 1
    monkeypatch.setattr(checkups_module, "_REST_S", 0.0)
    await client.get("/system/checkup", params={"again": "1"})
    assert looks == 2


async def test_a_page_that_closes_ends_the_look(make_page, put, monkeypatch):
    await put("mail", {"n": 1})
    cancelled = asyncio.Event()

    async def diagnose(_queue: Queue, **_: object) -> list[Finding]:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return []

    monkeypatch.setattr(Queue, "diagnose", diagnose)
    page = make_page()
    async with client_of(page) as client:
        await client.get("/system/checkup")
    await page.close()
    assert cancelled.is_set()


async def test_a_diagnosis_looks_at_so_many_ids_and_says_so(put):
    queue = await put("mail", *({"n": n} for n in range(30)))
    counts: list[int] = []
    found = await queue.diagnose(on_looked=counts.append, most_ids=10)
    assert max(counts) == 10
    assert any("only the first 10 ids of waiting were looked at" in each.text for each in found)
