"""An AI provider that misbehaves on request, and processors that ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.ai.server import AIServer, Make, processors


@pytest.fixture(name="server")
async def ai_server() -> AsyncIterator[AIServer]:
    """An AI provider."""
    async with AIServer() as server:
        yield server


@pytest.fixture
async def make(server: AIServer, tmp_path: Path) -> AsyncIterator[Make]:
    """Make processors of that provider; they are closed afterwards."""
    async with processors(server, tmp_path) as make:
        yield make
