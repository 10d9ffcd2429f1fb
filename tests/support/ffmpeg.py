"""Which ffmpeg the tests run: the one that beeq finds on this machine, or always the bundled one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from beeq.media.errors import MediaFailed
from beeq.media.ffmpeg import find_ffmpeg

_HIDDEN = ("ffmpeg", "ffprobe")


def hide_ffmpeg() -> Callable[[], None]:
    """Take the machine's ffmpeg off this process's PATH, and off its children's; return what undoes it.

    A folder that has one is replaced by links to all else that is in it.
    """
    before = os.environ["PATH"]
    links = tempfile.TemporaryDirectory(prefix="beeq-without-ffmpeg-")
    folders = [
        _copy_of(folder, Path(links.name, str(number))) if shutil.which("ffmpeg", path=folder) else folder
        for number, folder in enumerate(before.split(os.pathsep))
    ]
    os.environ["PATH"] = os.pathsep.join(folders)

    def undo() -> None:
        os.environ["PATH"] = before
        links.cleanup()

    return undo


def _copy_of(folder: str, links: Path) -> str:
    links.mkdir()
    for program in Path(folder).iterdir():
        if program.name not in _HIDDEN:
            (links / program.name).symlink_to(program.absolute())
    return str(links)


def describe_ffmpeg() -> str:
    """Return the path and the version of the ffmpeg that the tests run, or why there is none."""
    try:
        path = find_ffmpeg()
    except MediaFailed as missing:
        return str(missing)
    said = subprocess.run([path, "-version"], check=True, capture_output=True, text=True).stdout
    return f"{path}, {' '.join(said.split()[:3])}"
