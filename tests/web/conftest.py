"""An HTTP application on the session's server, under a prefix of the test's own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import httpx
import pytest

from beeq.protocol.keys import Keys
from tests.support.server import Server
from tests.web.app import app_on, keys_of, serving


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
