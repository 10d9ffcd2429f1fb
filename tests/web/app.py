"""The HTTP face as the tests beside it use it: in this process, on a real server, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from beeq.jobs import JOB_TYPES
from beeq.protocol.keys import Keys
from beeq.web import Application, Policy, create_app, service_for

SCRIPT = "/v1/generate/script"
#: Ids that a client may choose.
MINE, OTHER = "0a1b2c3d-0000-4000-8000-00000000000a", "0A1B2C3D-0000-4000-8000-00000000000B"
#: A request that is fine.
WANTED: dict[str, Any] = {"projectId": "project-1", "userId": 7, "parameters": {"topic": "bees"}}


def keys_of(prefix: str) -> list[Keys]:
    """Return the keys of the four queues."""
    return [Keys(prefix, name) for name in JOB_TYPES]


def app_on(url: str, prefix: str = "bq", **policy: Any) -> Application:
    """Return an application on that Redis."""
    return create_app(lambda: service_for(url, prefix), lambda: Policy(**policy))


def client_of(app: Any, **headers: str) -> httpx.AsyncClient:
    """Return a client of the application alone."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://localhost", headers=headers
    )


@asynccontextmanager
async def serving(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    """Run the application, and talk to it."""
    async with app.running(), client_of(app) as client:
        yield client


async def live(app: Application, *messages: str) -> list[dict[str, Any]]:
    """Lead the application through its lifespan; return what it says."""
    to_come = iter([{"type": f"lifespan.{message}"} for message in messages])
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(to_come)

    async def send(message: Any) -> None:
        said.append(message)

    async with asyncio.timeout(10):
        await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)  # type: ignore[arg-type]  # looser than ASGI's own
    return said


async def ask(client: httpx.AsyncClient, content: Any) -> httpx.Response:
    """Ask for a script with any JSON value; httpx itself refuses some."""
    return await client.post(
        SCRIPT, content=json.dumps(content), headers={"content-type": "application/json"}
    )


async def in_pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    """Yield a body piece by piece; it is sent without its length."""
    for piece in pieces:
        yield piece


async def then_silence(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yield the pieces, and then nothing, without an end."""
    for piece in pieces:
        yield piece
    await asyncio.Event().wait()  # until it is cancelled


def error_of(answer: httpx.Response) -> str:
    """Return the sentence of an error's answer, which must be nothing but that."""
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert content.keys() <= {"error", "faults"}
    return str(content["error"])
