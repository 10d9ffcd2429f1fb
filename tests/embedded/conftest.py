"""Folders of embedded servers, and how to see that such a server has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beeq.embedded import keeper
from tests.support.locks import is_free


def eventually(holds: Callable[[], object], *, within_s: float = 15) -> None:
    """Wait until ``holds()`` is true; fail when the time is over."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        threading.Event().wait(0.02)


def is_quiet(folder: Path) -> bool:
    """Return whether neither keeper nor server nor user of the folder lives."""
    return all(is_free(folder / name) for name in (keeper.USERS_LOCK, keeper.KEEPER_LOCK, keeper.SERVER_LOCK))


@pytest.fixture(scope="module")
def left_folders() -> Iterator[list[Path]]:
    """Folders that tests have left: their servers end by themselves, each within a second or so."""
    left: list[Path] = []
    yield left
    for folder in left:
        eventually(lambda: is_quiet(folder))  # noqa: B023 - called before the next round


@pytest.fixture
def folder(tmp_path: Path, left_folders: list[Path]) -> Path:
    """Give a folder whose server is gone when all tests are: none waits for that."""
    left_folders.append(tmp_path / "data")
    return left_folders[-1]
