"""The page in a real browser: Chromium, with and without JavaScript, wide and narrow, with hostile jobs."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import shutil
import warnings
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import uvicorn

from beeq.web import Policy, dashboard
from tests.media.clips import colour_clip, ffmpeg
from tests.support.browser import browser_page
from tests.support.history import put_history
from tests.support.mongo import MongoServer
from tests.support.node import NodeMissing, install

pytestmark = [
    pytest.mark.external,
    # PyMongo leaves a socket whose server went away to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
TEXTS = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)><svg onload=alert(1)>",
    "javascript:alert(1)",
    "\u202egnp.exe\u2066",
    "</textarea></title></style><iframe src=https://evil.example>",
    "{{constructor.constructor('alert(1)')()}}",
    "x" * 3000,
]
#: Twelve jobs done and three failed in a minute.
HISTORY = "12,3,4,1,5,2,,5,15,12,3,;20:4,4;22:15"
#: Two queues whose jobs' files and documents have such names and values.
MADE, GONE = "/q/media-processing/jobs", "/q/webhook-processing/jobs"
SCREENS = (
    "/",
    "/q/films",
    "/q/films?span=day",
    "/q/films/failed",
    "/q/films/jobs/1",
    "/failures",
    "/workers",
    "/system",
    "/system/checkup",
    "/search?q=film",
    "/search?q=alert",
    *(f"{MADE}/{number}" for number in range(3)),
    f"{MADE}/film",
    *(f"{GONE}/{number}" for number in range(2)),
    "/nothing",
)


class StartedServer(uvicorn.Server):
    """uvicorn, which says when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        self.has_started.set()


@pytest.fixture(scope="module")
def mongo(tmp_path_factory) -> Iterator[MongoServer]:
    with MongoServer(tmp_path_factory.mktemp("mongo")) as server:
        yield server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def documents(mongo, prefix) -> None:
    """Jobs that only the mirror has, and that try to be more than text."""
    found = [
        {
            "jobId": job_id,
            "queueName": "webhook",
            "status": text,
            "jobData": {text: text},
            "result": [text],
            "error": text,
            "projectId": text,
            text.replace("$", "").replace(".", ""): text,
            "createdAt": datetime.now(UTC),
            "updatedAt": datetime.now(UTC),
        }
        for number, text in enumerate(TEXTS)
        for job_id in (str(number), text)
    ]
    with mongo.client() as client:
        client[prefix]["queue-jobs"].insert_many(found)


@pytest.fixture
async def media_root(finish, tmp_path: Path) -> Path:
    """Files that jobs have made, with hostile names."""
    ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x48", "-frames:v", "1", tmp_path / "picture.png")
    names = [f"{text.replace('/', '_')}.html" for text in TEXTS[:-1]]
    for name in names:
        shutil.copy(tmp_path / "picture.png", tmp_path / name)
    colour_clip(tmp_path / "film.webm", "red", tone_hz=440, options=("-c:v", "libvpx", "-c:a", "libopus"))
    results = {str(number): {"path": name} for number, name in enumerate(names)}
    await finish("media-processing", {**results, "film": {"path": "film.webm"}})
    return tmp_path


@pytest.fixture
async def address(valkey, prefix, hostile, mongo, documents, media_root) -> AsyncIterator[str]:
    """Where the page is served by a real server."""
    page = dashboard(
        redis=valkey.url, prefixes=[prefix], policy=Policy(), mongo=mongo.url(prefix), media_root=media_root
    )
    server = StartedServer(uvicorn.Config(page, port=0, log_config=None, lifespan="on", ws="none"))
    serving = asyncio.create_task(server.serve())
    async with asyncio.timeout(10):
        await server.has_started.wait()
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.fixture
async def hostile(put, redis, fail):
    """A queue whose jobs try to be more than text, and a plain one."""
    queue = await put("films")
    for number, text in enumerate(TEXTS):
        record = {
            "data": {text: text, "list": [text]},
            "options": {"timestamp": 1, "stacktraces": [f"{text}\n{text}"], text: text},
            "status": "failed",
            "progress": text,
        }
        for job_id in (str(number), text):
            await redis.hset(queue.keys.jobs, job_id, json.dumps(record))
            await redis.sadd(queue.keys.failed, job_id)
    await put_history(redis, queue.keys, dict.fromkeys((*range(1, 20), *range(25, 90)), HISTORY))
    await put(TEXTS[0], {"n": 1})
    await put(TEXTS[1], {"n": 1})
    return queue


async def open_whole(page, address: str) -> None:
    """Open a screen, again while it shows how far something is."""
    await page.goto(address)
    while await page.locator("meta[http-equiv=refresh]").count():
        await page.goto(address)


@pytest.mark.parametrize(("has_script", "width"), [(True, 390), (False, 1280)])
async def test_hostile_jobs_are_text_on_every_screen(address, has_script, width):
    viewport = {"width": width, "height": 800}
    async with browser_page(address, java_script_enabled=has_script, viewport=viewport) as page:
        links = []
        for screen in SCREENS:
            await open_whole(page, address + screen)
            links += [await each.get_attribute("href") or "" for each in await page.locator("main a").all()]
            if has_script:
                assert await page.evaluate("document.documentElement.scrollWidth") <= width, screen
        assert all(link.startswith("/") for link in links)
        for link in dict.fromkeys(link for link in links if link.count("/") in (2, 4)):
            await page.goto(address + link)
            assert await page.locator("main h1").count() == 1


async def test_without_a_script_jobs_are_filtered_selected_and_retried(address, hostile):
    async with browser_page(address, java_script_enabled=False) as page:
        await page.goto(address)
        await page.get_by_role("link", name="films", exact=True).first.click()
        await page.get_by_role("link", name="Failed").click()
        await page.get_by_label("Select job 0", exact=True).check()
        await page.get_by_label("Select job 2", exact=True).check()
        await page.get_by_role("button", name="Retry").click()
        assert "2 jobs retried" in await page.get_by_role("status").inner_text()
        await page.get_by_role("link", name="Failed").click()
        await page.get_by_text("Filter", exact=True).first.click()
        await page.get_by_label("Error contains").fill("javascript:")
        await page.get_by_role("button", name="Filter").click()
        await page.get_by_label("all that match").check()
        await page.get_by_role("button", name="Remove").click()
        await page.get_by_role("button", name="Remove 1 job").click()
        assert "1 job removed" in await page.locator("h1").inner_text()
    health = await hostile.check_health()
    assert (health.waiting, health.failed) == (2, len(TEXTS) * 2 - 3)


async def test_files_that_jobs_made_are_shown_whatever_they_are_called(address):
    async with browser_page(address) as page:
        for number in range(len(TEXTS) - 1):
            await page.goto(f"{address}{MADE}/{number}")
            picture = page.locator(".made img")
            await picture.evaluate("each => each.decode()")
            assert await picture.evaluate("each => each.naturalWidth") == 64
        await page.goto(f"{address}{MADE}/film")
        film = page.locator(".made video")
        await film.evaluate("each => each.readyState || new Promise(ready => each.onloadedmetadata = ready)")
        assert await film.evaluate("each => each.videoWidth") == 64


async def test_a_person_finds_a_job_by_the_keyboard_alone(address):
    async with browser_page(address) as page:
        await page.goto(address)
        await page.keyboard.press("/")
        await page.keyboard.type("6")  # no other queue has a job of this id
        await page.keyboard.press("Enter")
        await page.wait_for_url("**/q/films/jobs/6")
        assert "Job 6" in await page.locator("h1").inner_text()


@pytest.mark.parametrize(("has_script", "width"), [(True, 1280), (False, 390)])
async def test_charts_are_there_and_say_what_they_show(address, has_script, width):
    viewport = {"width": width, "height": 800}
    async with browser_page(address, java_script_enabled=has_script, viewport=viewport) as page:
        picture = page.get_by_role("img", name="Jobs that ended in each minute of the last hour")
        async with asyncio.timeout(30):
            while not await picture.count():  # the overview does not wait for it
                await page.goto(address)
        await page.get_by_role("link", name="films", exact=True).first.click()
        await page.get_by_role("img", name="In and done / min: in at most 15, done at most 12").wait_for()
        assert await page.locator("figure svg").count() == 5
        charts = await page.locator(".history").bounding_box()
        tabs = await page.locator(".tabs").bounding_box()
        assert charts is not None
        assert tabs is not None
        assert (charts["y"] > tabs["y"]) == (width == 390), "on a phone the jobs come first"
        assert await page.get_by_role("link", name="Charts").is_visible() == (width == 390)
        await page.get_by_role("link", name="Day").click()
        await page.wait_for_url(re.compile(r"span=day#history$"))
        await page.get_by_text("The numbers").click()
        assert await page.get_by_role("columnheader", name="Waiting").is_visible()
        box = await page.locator("figure svg").first.bounding_box()
        assert box is not None
        assert box["width"] > 100


async def test_a_job_that_fails_is_offered_and_moves_nothing(address, hostile, redis):
    async with browser_page(address) as page:
        await page.goto(f"{address}/q/films/failed")
        await page.get_by_label("Select job 2", exact=True).check()
        rows = await page.locator(".rows tbody tr").count()
        record = {"data": {}, "options": {"timestamp": 1, "stacktraces": ["E: x"]}, "status": "failed"}
        await redis.hset(hostile.keys.jobs, "late", json.dumps({**record, "progress": 0}))
        await redis.sadd(hostile.keys.failed, "late")
        await page.get_by_text("1 new.").wait_for(timeout=15_000)
        assert await page.get_by_label("Select job 2", exact=True).is_checked()
        assert await page.locator(".rows tbody tr").count() == rows
        assert await page.locator(".tab.failed b").inner_text() == str(rows + 1)
        await page.get_by_role("link", name="Show", exact=True).click()
        await page.get_by_label("Select job late").wait_for()


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core's script."""
    try:
        modules = install(Path(__file__).resolve().parents[3] / ".node-axe", {"axe-core": "4.10.3"})
    except NodeMissing as missing:
        if os.environ.get("CI"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    return (modules / "axe-core" / "axe.min.js").read_text()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
async def test_axe_finds_nothing_serious_on_any_screen(address, axe, scheme, width):
    viewport = {"width": width, "height": 800}
    async with browser_page(address, bypass_csp=True, color_scheme=scheme, viewport=viewport) as page:
        for screen in SCREENS:
            await open_whole(page, address + screen)
            await page.evaluate(axe)
            found = await page.evaluate("axe.run()")
            serious = [
                (screen, each["id"], [node["html"][:200] for node in each["nodes"][:3]])
                for each in found["violations"]
                if each["impact"] in ("serious", "critical")
            ]
            assert serious == []
