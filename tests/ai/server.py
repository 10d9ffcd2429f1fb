"""An AI provider on loopback that can misbehave in every way, and its clients, for the tests beside it.

Each of its routes plays its scripts in turn, the last one for ever. ``AIJob`` is a job in a handler's
hands, without a queue.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import traceback
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from beeq.ai.client import Limits
from beeq.processors.ai import AIProcessor
from beeq.processors.base import ProcessorSettings
from tests.webhooks.receiver import WAIT_S, Script

KEY = "sk-very/hunter2+key"
CHAT = "POST /v1/chat/completions"
IMAGES = "POST /v1/images/generations"
#: The beginning of an answer whose body is still to come.
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
PNG = b"\x89PNG\r\n\x1a\n and what else there is of a picture"
SCRIPT = {"title": "Bees", "scenes": [{"description": "A meadow.", "dialogue": "Buzz", "duration": 4.5}]}


Make = Callable[..., AIProcessor]


def answer(value: Any, status: int = 200, **headers: str) -> Script:
    """Return a script that answers with JSON; ``retry_after="1"`` sets a header."""
    return content(json.dumps(value).encode(), status, **{"content-type": "application/json", **headers})


def content(body: bytes, status: int = 200, **headers: str) -> Script:
    """Return a script that answers with bytes."""

    async def play(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
        await writer.drain()

    return play


def chat(text: Any, **choice: Any) -> Script:
    """Return a script that answers with a chat completion."""
    return answer({"choices": [{"message": {"role": "assistant", "content": text}, **choice}]})


def image(picture: bytes = PNG) -> Script:
    """Return a script that answers with a picture in base64."""
    return answer({"data": [{"b64_json": base64.b64encode(picture).decode()}]})


def video(status: str, **more: Any) -> Script:
    """Return a script that answers with the state of the video ``v1``."""
    return answer({"id": "v1", "object": "video", "status": status, **more})


@dataclass
class Request:
    """One request as it came."""

    route: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """What the body holds."""
        return json.loads(self.body)


class AIServer:
    """A server on a free port of 127.0.0.1.

    Attributes:
        requests: what came, in order.
        connections: how many connections were opened.
    """

    def __init__(self) -> None:
        self._routes: dict[str, list[Script]] = {}
        self._open = 0
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()  # added by a connection, removed at its end
        self.requests: list[Request] = []
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base URL."""
        return f"{self.origin}/v1"

    def on(self, route: str, *scripts: Script) -> None:
        """Let a route, such as ``GET /v1/videos/v1``, play these from now on."""
        self._routes[route] = list(scripts)

    def asked(self, route: str) -> list[Request]:
        """Return the requests of a route."""
        return [request for request in self.requests if request.route == route]

    async def until_asked(self, route: str, count: int = 1) -> None:
        """Wait until a route was asked that often."""
        await self._until(lambda: len(self.asked(route)) >= count)

    async def until_open(self, count: int) -> None:
        """Wait until exactly that many connections are open."""
        await self._until(lambda: self._open == count)

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(condition)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: asyncio.Task[Any] | None = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        await self._count(opened=1)
        try:
            while not writer.is_closing():
                request = await _read(reader)
                self.requests.append(request)
                await self._count()
                scripts = self._routes.get(request.route, [answer({"error": "no such route"}, 404)])
                await (scripts.pop(0) if len(scripts) > 1 else scripts[0])(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client hung up, which some tests wait for, or the test is over
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            await self._count(opened=-1)

    async def _count(self, opened: int = 0) -> None:
        async with self._changed:
            self._open += opened
            self.connections += max(opened, 0)
            self._changed.notify_all()


async def _read(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").rstrip().split("\r\n")
    headers = {name.lower(): value for name, value in (item.split(": ", 1) for item in fields)}
    return Request(
        line.rpartition(" ")[0], headers, await reader.readexactly(int(headers.get("content-length", 0)))
    )


@dataclass
class AIJob:
    """A job as its handler sees it. ``faults`` are raised by ``remember``, one each time."""

    data: Any
    memory: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    id: str | None = "5e1b0cf7-9f2a-4c0e-8f3c-1f6f1d0a9f11"
    reports: list[Any] = field(default_factory=list)
    faults: list[Exception] = field(default_factory=list)

    async def report_progress(self, value: Any) -> None:
        self.reports.append(value)

    async def remember(self, **facts: Any) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.memory = {**self.memory, **facts}


def ai_job(job_type: str, prompt: str | None = "a bee", **more: Any) -> AIJob:
    """Return a job of that type."""
    return AIJob({"type": job_type, "prompt": prompt, "parameters": more.pop("parameters", {}), **more})


@contextlib.asynccontextmanager
async def processors(server: AIServer, root: Path) -> AsyncIterator[Make]:
    """Yield ``make(limits=…, **settings)``: processors that use the server and write into ``root``."""
    made: list[AIProcessor] = []

    def make(limits: Limits | None = None, **settings: Any) -> AIProcessor:
        defaults = {
            "media_root": root,
            "ai_base_url": server.url,
            "ai_api_key": KEY,
            "ai_text_model": "texts",
            "ai_image_model": "pictures",
            "ai_video_model": "films",
            "ai_poll_interval_ms": 5,
        }
        made.append(AIProcessor(ProcessorSettings(**(defaults | settings)), limits=limits))
        return made[-1]

    yield make
    for processor in made:
        await processor.close()


def whole_text_of(error: BaseException) -> str:
    """Return all that would be shown of an error."""
    return f"{error!r} {''.join(traceback.format_exception(error))}"
