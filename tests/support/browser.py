"""Chromium for the tests of the page, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.async_api import Page

#: Debian's package, or Ubuntu's.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def browser_is_there() -> None:
    """Skip the test where there is no Chromium; in CI, fail."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("there is no chromium on PATH")
        pytest.skip("there is no chromium on PATH")


@asynccontextmanager
async def browser_page(address: str, **options: Any) -> AsyncIterator[Page]:
    """Open a page in Chromium; what it asks of others, and every dialog, is a failure."""
    from playwright.async_api import async_playwright

    browser_is_there()
    faults: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = await browser.new_context(**options)
        page = await context.new_page()

        async def dismiss(dialog) -> None:
            faults.append(f"a dialog: {dialog.message}")
            await dialog.dismiss()

        page.on("dialog", dismiss)

        def requested(sent) -> None:
            if not sent.url.startswith(address):
                faults.append(f"a request to {sent.url}")

        def wrote(said) -> None:
            if "Security Policy" in said.text:
                faults.append(said.text)

        def failed(error) -> None:
            faults.append(f"an error: {error}")

        page.on("request", requested)
        page.on("console", wrote)
        page.on("pageerror", failed)
        yield page
        await browser.close()
    assert faults == []
