"""Every script test has a queue of its own on the session's server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
import redis

from beeq.protocol.keys import Keys
from tests.lua.bench import Bench


@pytest.fixture
def bench(sync_redis: redis.Redis) -> Iterator[Bench]:
    """A queue that nobody else uses; deleted afterwards."""
    bench = Bench(sync_redis, Keys("bq", f"lua-{uuid.uuid4().hex[:12]}"))
    yield bench
    bench.close()
