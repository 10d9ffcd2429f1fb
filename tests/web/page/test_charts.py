"""Histories on the page: charts and their numbers, gaps in words, and that the page keeps them going."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest
from markupsafe import Markup

from beeq.protocol.keys import Keys
from beeq.web.page.charts.drawing import Series, chart, sparkline
from beeq.web.page.charts.histories import Histories
from beeq.web.page.charts.panels import rate, share
from beeq.web.page.store import QueueStore
from tests.support.history import let_minutes_pass, put_history
from tests.web.page.conftest import client_of

BUSY = "12,3,4,1,5,2,,5,15,12,3,;20:4,4;22:15"


def parsed(svg: Markup) -> ET.Element:
    return ET.fromstring(svg)


def test_a_chart_draws_values_gaps_and_tips():
    svg = parsed(
        chart("<b>", [Series("in", [0, None, 5.0], "one")], ["a: 0", 'b: "nobody" <looked>', "c: 5"])
    )
    assert (svg.get("role"), svg.get("aria-label"), svg.get("viewBox")) == ("img", "<b>", "0 0 3 40")
    gap, line, *tips = list(svg)
    assert (gap.get("class"), gap.get("x"), gap.get("width")) == ("gap", "1", "1")
    assert line.get("d") == "M0 40V40H1M2 2.0V2.0H3"
    assert [each[0].text for each in tips] == ["a: 0", 'b: "nobody" <looked>', "c: 5"]
    assert "style" not in svg.attrib


@pytest.mark.parametrize("values", [[], [None], [0.0, 0.0], [1e300, 1], [None, 1e-9, None]])
def test_any_numbers_make_a_picture(values):
    picture = parsed(sparkline("what", values, values))
    assert all("nan" not in (each.get("d") or "") for each in picture)


def test_rates_and_shares_are_short():
    assert [rate(count) for count in (None, 0, 0.25, 3.0, 12.6, 12345)] == [
        "?", "0", "0.2", "3", "13", "12\u202f345"
    ]  # fmt: skip
    assert [share(part) for part in (None, 0, 0.00001, 0.0123, 0.5, 1)] == [
        "–", "0 %", "under 0.1 %", "1.2 %", "50 %", "100 %"
    ]  # fmt: skip


async def test_the_overview_tells_of_the_last_hour(client, put, redis, eventually):
    queue = await put("films", {"n": 1})
    await put("quiet", {"n": 1})
    await put_history(redis, queue.keys, dict.fromkeys(range(1, 50), BUSY))

    async def drawn() -> str:
        text = (await client.get("/")).text
        return text if 'class="spark"' in text else ""

    text = await eventually(drawn)
    assert text.count('class="spark"') == 1
    assert "15 in, 15 out a minute, 20 % failed" in text
    assert 'aria-label="Jobs that ended in each minute of the last hour, at most 15; now 15 in' in text


async def test_a_queues_screen_has_charts_and_their_numbers(client, put, redis):
    queue = await put("films", {"n": 1})
    await put_history(redis, queue.keys, dict.fromkeys((*range(1, 20), *range(25, 40)), BUSY))
    text = (await client.get("/q/films")).text
    assert "510 in, 408 done, 102 failed (20 %), 136 failed attempts that were repeated." in text
    for title in ("In and done / min", "Failed / min", "Waiting", "Wait", "Duration"):
        assert f"<b>{title}</b>" in text
    assert text.count('class="chart"') == 5
    assert "It begins at" in text
    assert "(5m): no worker of" in text
    assert text.count("nobody looked</td>") == 60 - 34
    assert "style=" not in text


async def test_the_address_says_how_long(client, put, redis):
    queue = await put("films", {"n": 1})
    await put_history(redis, queue.keys, dict.fromkeys(range(1, 200), BUSY))
    hours = {str(queue.now_ms() // 3_600_000 - ago): "600,,,60;;" for ago in range(1, 24)}
    await redis.hset(queue.keys.hours, mapping=hours)
    day = (await client.get("/q/films/failed?span=day")).text
    assert "2\u202f388 done" in day
    assert 'href="/q/films/failed?span=week#history"' in day
    week = (await client.get("/q/films?span=week")).text
    assert "13\u202f800 done" in week
    assert "Last hour" in (await client.get("/q/films?span=%22%3Cyear")).text


@pytest.mark.parametrize("span", ["hour", "day", "week"])
@pytest.mark.parametrize(
    "entry",
    ["9" * 4000, "-5,-5,-5,-5,-5;3:-5,5", f"1,1,1,1;3:{'9' * 400}", f"1;{'9' * 5000}:1", "nan,1e999,inf,2"],
)
async def test_any_text_in_a_history_is_shown_as_numbers(client, put, redis, span, entry):
    queue = await put("films", {"n": 1})
    await put_history(redis, queue.keys, dict.fromkeys(range(1, 50), entry))
    hour = queue.now_ms() // 3_600_000
    await redis.hset(queue.keys.hours, mapping={str(hour - ago): entry for ago in range(100)})
    response = await client.get(f"/q/films?span={span}")
    assert (response.status_code, len(response.text) < 200_000) == (200, True)
    assert (await client.get("/")).status_code == 200


async def test_without_a_history_the_screen_says_why(make_page, put):
    await put("films", {"n": 1})
    async with client_of(make_page()) as client:
        assert "so does this page while it runs" in (await client.get("/q/films")).text
    async with client_of(make_page(is_read_only=True)) as client:
        assert "this page is read-only, and writes nothing" in (await client.get("/q/films")).text


async def test_a_key_of_another_type_hides_no_jobs(client, put, redis):
    queue = await put("films", {"n": 1})
    await redis.set(queue.keys.minutes, "no history")
    assert "no history" not in (await client.get("/")).text
    screen = await client.get("/q/films")
    assert screen.status_code == 200
    assert 'class="chart"' not in screen.text
    assert ">1</a></th>" in screen.text.replace("<bdi>", "").replace("</bdi>", "")


async def test_the_page_samples_queues_that_have_no_worker(client, put, redis, eventually):
    """Node's leave no trace of their own."""
    queue = await put("films", {"n": 1}, {"n": 2})
    await client.get("/")
    assert await eventually(lambda: redis.hget(queue.keys.minutes, "last"))
    await let_minutes_pass(redis, queue.keys, 2)
    assert (await queue.history()).total.waiting == 2.0


async def test_a_page_that_is_read_only_samples_nothing(valkey, put, redis, prefix):
    queue = await put("films", {"n": 1})
    store = QueueStore(valkey.url, [prefix])
    for is_read_only in (True, False):
        histories = Histories(store, is_read_only=is_read_only)
        histories.begin()
        assert (histories.is_sampling) is not is_read_only
        if not is_read_only:
            await histories.sample()
        assert await redis.exists(queue.keys.minutes) == (not is_read_only)
        await histories.close()
    await store.close()


async def test_many_queues_are_sampled_in_few_calls_each(valkey, put, redis, prefix):
    for n in range(120):
        await redis.hset(Keys(prefix, f"q{n}").jobs, "1", "{}")
    store = QueueStore(valkey.url, [prefix])
    histories = Histories(store, is_read_only=False)
    while not (await store.names(prefix))[1]:
        pass
    assert 0 < await histories.sample() <= 61
    sampled = [key async for key in redis.scan_iter(match=f"{prefix}:*:beeq:minutes", count=1000)]
    assert len(sampled) == 120
    await histories.close()
    await store.close()
    await redis.delete(*sampled, *[key async for key in redis.scan_iter(match=f"{prefix}:*", count=1000)])


async def test_a_group_of_failures_has_its_hours(client, fail):
    await fail("films", {"a": ValueError("no 1"), "b": ValueError("no 2")})
    text = (await client.get("/failures")).text
    assert 'aria-label="2 failed in the last 24 hours, at most 2 in one"' in text
