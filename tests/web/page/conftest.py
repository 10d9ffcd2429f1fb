"""The page alone, on the session's server, under a prefix of the test's own."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from beeq import JobFailed
from beeq.protocol.keys import Keys
from beeq.web import Dashboard, Policy, dashboard
from beeq.web.page import waits
from tests.support.server import Server


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let screens wait until all is known, also on a busy machine."""
    be_patient(monkeypatch)


def be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the screens of this process wait until all is known."""
    for name in [each for each in vars(waits) if each.isupper()]:
        monkeypatch.setattr(waits, name, 20.0)


@pytest.fixture
def prefix() -> str:
    return f"page-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def make_page(valkey: Server, prefix: str) -> AsyncIterator[Callable[..., Dashboard]]:
    """``make_page(**policy)``: a page, closed at the end."""
    made: list[Dashboard] = []

    def make(*, auth=None, base_path=None, prefixes=None, media_root=None, mongo=None, **policy) -> Dashboard:
        page = dashboard(
            redis=valkey.url,
            prefixes=prefixes or [prefix],
            base_path=base_path,
            auth=auth,
            policy=Policy(**policy),
            media_root=media_root,
            mongo=mongo,
        )
        made.append(page)
        return page

    yield make
    for page in made:
        await page.close()


@pytest.fixture
async def client(make_page) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a page that anybody on this machine may act on."""
    async with client_of(make_page()) as client:
        yield client


def client_of(page, **headers: str) -> httpx.AsyncClient:
    """Return a client that keeps cookies, as a browser does."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=page), base_url="http://localhost", headers=headers
    )


@pytest.fixture
def put(make_queue, prefix, audit) -> Callable[..., object]:
    """``await put(name, *data)``: a queue with waiting jobs, open."""

    async def put(name: str, *data, **options):
        queue = make_queue(name=name, prefix=prefix, activate_delayed_jobs=False)
        audit.append(Keys(prefix, name))
        for each in data:
            await queue.enqueue(each, **options)
        return queue

    return put


@pytest.fixture
def fail(put) -> Callable[..., object]:
    """``await fail(name, {id: error})``: a queue with failed jobs, open."""

    async def fail(name: str, errors: dict[str, Exception], *, data=None):
        queue = await put(name)

        async def handler(job):
            raise errors[job.id]

        jobs = [await queue.enqueue({"n": 1} if data is None else data, id=each) for each in errors]
        queue.process(handler, concurrency=5)
        for job in jobs:
            with pytest.raises(JobFailed):
                await job.result(timeout=10_000)
        return queue

    return fail


@pytest.fixture
def finish(put) -> Callable[..., object]:
    """``await finish(name, {id: result})``: a queue whose jobs have succeeded, open."""

    async def finish(name: str, results: dict[str, object], *, data=None):
        queue = await put(name)
        jobs = [await queue.enqueue({"n": 1} if data is None else data, id=each) for each in results]
        queue.process(lambda job: results[job.id], concurrency=5)
        for job in jobs:
            await job.result(timeout=10_000)
        return queue

    return finish
