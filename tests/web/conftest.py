"""Fixtures that several integration tests share: an HTTP application of its own, and an AI provider.

* ``prefix``, ``client``: the HTTP face on the session's server, under a prefix of the test's own.
* ``server``, ``make``: a provider that does as it is told, and processors that ask it.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from beeq.protocol.keys import Keys
from tests.integration.ai_server import AIServer, Make, processors
from tests.integration.web_app import app_on, keys_of, serving
from tests.support.server import Server


@pytest.fixture
def prefix(audit: list[Keys]) -> str:
    """A prefix of the test's own; its four queues are audited."""
    prefix = f"web-{uuid.uuid4().hex[:12]}"
    audit += keys_of(prefix)
    return prefix


@pytest.fixture
async def client(valkey: Server, prefix: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application on the session's server."""
    async with serving(app_on(valkey.url, prefix)) as client:
        yield client


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
