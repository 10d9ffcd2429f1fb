"""``beeq demo --page``: what somebody sees who watches its jobs in a browser."""

from __future__ import annotations

import asyncio
import re
import signal

import pytest
from playwright.async_api import Page

from tests.cli.command import PATIENCE_S, Beeq
from tests.support.browser import browser_page

pytestmark = [pytest.mark.ffmpeg, pytest.mark.external]
PATIENCE_MS = 1_000 * PATIENCE_S


async def until_succeeded(page: Page) -> None:
    """Follow a job's screen, by what it offers, until the job has succeeded."""
    state = page.locator("h1 .state")
    while (before := await state.inner_text()) != "succeeded":
        await page.get_by_role("link", name="Show", exact=True).click()
        await state.filter(has_not_text=before).wait_for()


async def test_a_job_runs_and_ends_and_one_fails_on_the_page(bare_beeq: Beeq):
    demo = bare_beeq.start("demo", "--page", MONGODB_URI="mongodb://127.0.0.1:1", BEEQ_WEB_TOKEN="secret")
    line = await asyncio.to_thread(demo.first_output)
    address = line.partition("The page is at ")[2].partition("/ until Ctrl-C.")[0]
    async with browser_page(address) as page:
        page.set_default_timeout(PATIENCE_MS)
        await page.goto(address)
        active = page.locator("[data-queue=ai-generation] [data-count=active]")
        async with asyncio.timeout(PATIENCE_S):
            while not await active.count():  # no queue is there yet
                await asyncio.sleep(0.1)
                await page.reload()
        await active.filter(has_text=re.compile("[1-9]")).wait_for()
        await page.get_by_role("link", name="ai-generation", exact=True).first.click()
        await page.get_by_role("link", name="Active").click()
        rows = page.locator(".rows th a")
        async with asyncio.timeout(PATIENCE_S):
            while not await rows.count():  # one has ended, and the next one has not begun
                await page.reload()
        running = await rows.first.inner_text()

        await page.goto(f"{address}/q/ai-generation/jobs/{running}")
        await until_succeeded(page)
        await page.get_by_role("heading", name="Result").wait_for()

        await page.goto(f"{address}/q/webhook-processing")
        await page.locator(".tab.failed b").filter(has_text="1").wait_for()
        await page.get_by_role("link", name="Failed").click()
        await page.locator(".rows th a").first.click()
        assert "webhook answered 503" in await page.locator(".needs.error").inner_text()
        await page.get_by_text("after 2 failed attempts").wait_for()
        await page.get_by_role("button", name="Retry").click()
        await until_succeeded(page)
        await page.goto(f"{address}/q/webhook-processing/delayed")
        await page.locator(".rows th a").wait_for()
    demo.signal(signal.SIGINT)
    assert await asyncio.to_thread(demo.ended) == 0


def test_the_demo_goes_on_after_its_jobs_until_ctrl_c(bare_beeq: Beeq):
    temporary = bare_beeq.folder / "tmp"
    temporary.mkdir()
    demo = bare_beeq.start("demo", "--page", TMPDIR=str(temporary))
    demo.until("The worker and the page go on until Ctrl-C.", within_s=4 * PATIENCE_S)
    demo.signal(signal.SIGINT)
    assert demo.ended() == 0
    assert "failed, as it should" in demo.stdout
    assert "FAILED" not in demo.stdout
    assert list(temporary.iterdir()) == []


def test_a_page_and_json_are_one_too_many(bare_beeq: Beeq):
    ran = bare_beeq.run("demo", "--page", "--json")
    assert (ran.returncode, "--page" in ran.stderr) == (2, True)
