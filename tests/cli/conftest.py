"""Fixtures of the commands' tests: ``beeq`` runs the real command, in a folder of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Where the package lies in a checkout; installed, it is found anyway.
sys.path.insert(0, str(ROOT / "cli"))

from tests.cli.command import Beeq  # noqa: E402 - after the path
from tests.support.server import Server  # noqa: E402 - after the path
from tests.support.warm_start import WarmStart  # noqa: E402 - after the path


@pytest.fixture
def beeq(tmp_path: Path, valkey: Server, warm_start: WarmStart) -> Iterator[Beeq]:
    """The command on the session's server; what it leaves running ends with the test."""
    folder = tmp_path / "here"
    folder.mkdir()
    command = Beeq(folder, warm_start, BEEQ_REDIS_URL=valkey.url)
    yield command
    command.end()


@pytest.fixture
def bare_beeq(tmp_path: Path, warm_start: WarmStart) -> Iterator[Beeq]:
    """The command with nothing configured: it uses the embedded server."""
    folder = tmp_path / "bare"
    folder.mkdir()
    command = Beeq(folder, warm_start)
    yield command
    command.end()
