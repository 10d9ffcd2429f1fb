"""Fixtures of the interop tests: npm's bee-queue in processes of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.node_bee import NodeBee
from tests.support.server import Server

MakeNode = Callable[..., Awaitable[NodeBee]]


@pytest.fixture
async def make_node(node_modules: Path, valkey: Server, queue_name: str) -> AsyncIterator[MakeNode]:
    """``await make_node(concurrency=…, **settings)``: a Node process on the test's queue.

    With ``concurrency`` it works; ``settings`` are bee-queue's own, in their camelCase.
    """
    made: list[NodeBee] = []

    async def make(*, concurrency: int = 0, **settings: Any) -> NodeBee:
        node = await NodeBee.start(node_modules, url=valkey.url, name=queue_name, **settings)
        made.append(node)
        if concurrency:
            await node.call("process", concurrency=concurrency)
        return node

    yield make
    for node in made:
        await node.end()


@pytest.fixture
async def node(make_node: MakeNode) -> NodeBee:
    """A Node process that produces and listens."""
    return await make_node(isWorker=False)
