"""Fixtures of the mirror's tests: MongoDB's protocol on a real socket, and all four queues mirrored."""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beeq import Queue
from beeq.mirror.mirror import Mirror
from beeq.service import QueueService
from tests.support.mongo import MongoServer
from tests.support.server import Server

_FOLDER = Path(__file__).parent
#: PyMongo leaves a socket whose server went away to the garbage collector.
_LEFT_BY_PYMONGO = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let PyMongo be, in the tests of this folder."""
    for item in items:
        if item.path.parent == _FOLDER:
            item.add_marker(_LEFT_BY_PYMONGO)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Have what PyMongo has left collected before the tests of other folders begin."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """The session's server: shared, so never stopped by a test."""
    with MongoServer(tmp_path_factory.mktemp("mongo")) as server:
        yield server


@pytest.fixture
def own_mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MongoServer]:
    """A server for this test alone; not started yet."""
    server = MongoServer(tmp_path_factory.mktemp("own-mongo"))
    yield server
    server.stop()


class Scene:
    """Producers, workers and mirrors of one prefix; ``database`` is the test's own."""

    def __init__(self, redis_url: str, prefix: str, mongo: MongoServer) -> None:
        self.redis_url = redis_url
        self.prefix = prefix
        self.mongo = mongo
        self.database = prefix
        self._queues: list[Queue] = []
        self._mirrors: list[Mirror] = []
        self.service = QueueService(redis=redis_url, prefix=prefix, mirrored=True)

    @property
    def mongo_url(self) -> str:
        return self.mongo.url(self.database)

    def worker(self, name: str, handler: Any, *, mirrored: bool = True, **settings: Any) -> Queue:
        """Return a worker on one of the queues."""
        queue = Queue(name, redis=self.redis_url, prefix=self.prefix, mirrored=mirrored, **settings)
        queue.process(handler, concurrency=20)
        self._queues.append(queue)
        return queue

    def mirror(self, *, starts: bool = True, **options: Any) -> Mirror:
        """Return a mirror."""
        mirror = Mirror(self.mongo_url, redis=self.redis_url, prefix=self.prefix, **options)
        self._mirrors.append(mirror)
        if starts:
            mirror.start()
        return mirror

    def documents(self) -> dict[str, dict[str, Any]]:
        """Return the documents by job id."""
        return {document["jobId"]: document for document in self.mongo.documents(self.database)}

    async def close(self) -> None:
        for mirror in self._mirrors:
            await mirror.stop()
        for queue in self._queues:
            await queue.close()
        for queue in self.service.queues.values():
            await queue.destroy()
        await self.service.close()


@pytest.fixture
async def scene(valkey: Server, queue_name: str, mongo: MongoServer) -> AsyncIterator[Scene]:
    """All four queues under a prefix of the test's own."""
    scene = Scene(valkey.url, queue_name, mongo)
    yield scene
    await scene.close()


@pytest.fixture
async def make_scene(valkey: Server, queue_name: str) -> AsyncIterator[Callable[[MongoServer], Scene]]:
    """The same with a MongoDB of the test's choice."""
    scenes: list[Scene] = []

    def make(mongo: MongoServer) -> Scene:
        scenes.append(Scene(valkey.url, queue_name, mongo))
        return scenes[-1]

    yield make
    for scene in scenes:
        await scene.close()
