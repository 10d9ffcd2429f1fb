"""Makes the README's pictures of the page, from the demo's jobs: ``python -m tests.pictures [FOLDER]``.

It runs ``beeq demo --page``, goes to the screens with Chromium, and writes what it sees into ``docs/``, in
light and in dark. The pictures have few colours, and so few bytes.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from PIL import Image

from tests.support.browser import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import FloatRect, Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
#: The names of the pictures, each of which is there in both schemes.
SCREENS = ("overview", "queue", "failed-job", "film")
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
MOST_BYTES = 120_000
_WIDTH, _HEIGHT = 1200, 900
_COLOURS = 128
#: Jobs that run while the overview is looked at.
_COPIES = 5
_PATIENCE_S = 90.0


def file_of(screen: str, scheme: str) -> str:
    """Return the name of a picture's file."""
    return f"{screen}-{scheme}.png"


def main(folder: Path) -> None:
    """Make all pictures."""
    from playwright.sync_api import sync_playwright

    folder.mkdir(exist_ok=True)
    with demo() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": _WIDTH, "height": _HEIGHT})
        page.set_default_timeout(_PATIENCE_S * 1000)
        for screen in _ways(page, address):
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                content = smaller(page.screenshot(clip=_used(page)))
                (folder / file_of(screen, scheme)).write_bytes(content)
                print(f"{file_of(screen, scheme)}: {len(content):,} bytes")  # noqa: T201 - a script
        browser.close()


@contextmanager
def demo() -> Iterator[str]:
    """Run the demo while the block lasts; yield the page's address."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "cli")))
    process = subprocess.Popen(
        [sys.executable, "-m", "beeq_cli", "demo", "--page", "--quiet"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://[^ /]+", line)
        assert found is not None, line
        yield found[0]
    finally:
        process.terminate()
        process.communicate(timeout=_PATIENCE_S)


def _ways(page: Page, address: str) -> Iterator[str]:
    """Lead to one screen after the other, when there is something to see; yield its name."""
    page.goto(f"{address}/q/webhook-processing")
    page.locator(".tab.failed b").filter(has_text="1").wait_for()
    page.goto(f"{address}/q/webhook-processing/failed")
    page.locator(".rows th a").first.click()
    page.get_by_text("Newest trace").click()  # it names folders of this machine
    yield "failed-job"
    page.goto(f"{address}/q/media-processing")
    page.locator(".tab.succeeded b").filter(has_text=re.compile("[2-9]")).wait_for()
    page.goto(f"{address}/q/media-processing/succeeded?text=frame-extract")
    page.locator(".rows th a").first.click()
    page.locator(".made img").wait_for()
    yield "film"
    scenes = f"{address}/q/ai-generation/succeeded?text=Scene"
    page.goto(scenes)
    while not page.locator(".history svg").count():  # the first minute is not over
        time.sleep(1)
        page.reload()
    page.route(
        "**/events*", lambda route: route.abort()
    )  # from here on each screen stays as it was asked for
    page.goto(f"{address}/q/ai-generation/succeeded")
    yield "queue"
    for _ in range(_COPIES):
        page.goto(scenes)
        page.locator(".rows th a").first.click()
        page.get_by_role("button", name="Duplicate").click()
        page.wait_for_load_state()
    page.goto(address)
    yield "overview"


def _used(page: Page) -> FloatRect:
    """Return the part of the window that has something in it."""
    end = page.evaluate("document.querySelector('main').lastElementChild.getBoundingClientRect().bottom")
    return {"x": 0, "y": 0, "width": _WIDTH, "height": min(int(end) + 24, _HEIGHT)}


def smaller(png: bytes) -> bytes:
    """Return the picture with few colours."""
    with Image.open(io.BytesIO(png)) as image:
        few = image.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    to = io.BytesIO()
    few.save(to, "PNG", optimize=True)
    return to.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
