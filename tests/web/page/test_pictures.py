"""The README's pictures of the page can be made again, and are small."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from PIL import Image

from tests import pictures
from tests.support.browser import browser_is_there

pytestmark = [pytest.mark.ffmpeg, pytest.mark.external]
FILES = {pictures.file_of(screen, scheme) for screen in pictures.SCREENS for scheme in pictures.SCHEMES}


def test_the_readme_shows_each_picture_in_both_schemes():
    readme = (pictures.ROOT / "README.md").read_text()
    shown = re.findall(r'srcset="docs/([\w-]+\.png)"><img src="docs/([\w-]+\.png)" alt="[^"]{20,}"', readme)
    assert shown == [
        (pictures.file_of(each, "dark"), pictures.file_of(each, "light")) for each in pictures.SCREENS
    ]
    assert {path.name for path in pictures.DOCS.iterdir()} == FILES


def test_the_pictures_are_made_of_the_demos_jobs(tmp_path):
    browser_is_there()
    made = subprocess.run(
        [sys.executable, "-m", "tests.pictures", str(tmp_path)],
        cwd=pictures.ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert {path.name for path in tmp_path.iterdir()} == FILES
    for path in (*tmp_path.iterdir(), *pictures.DOCS.iterdir()):
        assert path.stat().st_size < pictures.MOST_BYTES, path
        with Image.open(path) as picture:
            assert len(picture.getcolors(256) or ()) > 20, "there is something on it"
