"""A queue of npm's bee-queue in a process of its own, driven from a Python test (``tests/interop/bee.js``)."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import PATIENCE_S

_DRIVER = Path(__file__).resolve().parents[1] / "interop" / "bee.js"
#: A line may hold a large payload several times.
_MAX_LINE_BYTES = 64 * 1024 * 1024


class NodeError(Exception):
    """What bee-queue threw or rejected with."""


class NodeBee:
    """One Node process with one queue. Every wait is bounded; ``end`` leaves nothing behind.

    ``news`` has the unsolicited messages of the process, as ``(name, *arguments)``: the queue's events
    under their names, those of the job objects made there as ``its …``, and ``handling``.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self.news: list[tuple[Any, ...]] = []
        self._has_news = asyncio.Event()
        self._stderr = bytearray()
        self._readers = [
            asyncio.ensure_future(self._read_stdout()),
            asyncio.ensure_future(self._read_stderr()),
        ]

    @classmethod
    async def start(cls, modules: Path, *, url: str, name: str, **settings: Any) -> Self:
        """Start Node and open the queue ``name`` with bee-queue's own ``settings``."""
        process = await asyncio.create_subprocess_exec(
            "node",
            str(_DRIVER),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=_MAX_LINE_BYTES,
            env={"PATH": os.environ["PATH"], "NODE_PATH": str(modules)},
        )
        node = cls(process)
        try:
            await node.call("open", name=name, settings={"redis": url, **settings})
        except BaseException:
            await node.end()
            raise
        return node

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.returncode is None

    async def call(self, op: str, **ask: Any) -> Any:
        """Call one of the driver's operations and return its answer.

        Raises:
            NodeError: bee-queue refused, or the process died.
        """
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        line = json.dumps({"call": number, "op": op, **ask})
        self._process.stdin.write(line.encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # the reader raises why the process died
            await self._process.stdin.drain()
        return await asyncio.wait_for(answer, 30)

    async def save(self, data: Any, **ask: Any) -> Any:
        """Save one job and return its id."""
        return (await self.call("save", jobs=[{"data": data, **ask}]))[0]

    async def job(self, job_id: str) -> Any:
        """Return the job as Node reads it from Redis or remembers it, or None."""
        return await self.call("getJob", id=job_id)

    def of(self, name: str, where: Callable[..., bool] | None = None) -> list[tuple[Any, ...]]:
        """Return the arguments of all news of that name."""
        named = [news[1:] for news in self.news if news[0] == name]
        return [arguments for arguments in named if where is None or where(*arguments)]

    async def until(
        self,
        name: str,
        count: int = 1,
        *,
        where: Callable[..., bool] | None = None,
        within_s: float = PATIENCE_S,
    ) -> list[tuple[Any, ...]]:
        """Wait for ``count`` messages ``name``; return their arguments.

        Raises:
            AssertionError: they did not come in time, or the process died; the message lists those that came.
        """
        try:
            async with asyncio.timeout(within_s):
                while len(self.of(name, where)) < count:
                    assert self.is_alive, f"Node died: {self._stderr.decode(errors='replace')}"
                    self._has_news.clear()
                    await self._has_news.wait()
        except TimeoutError:
            raise AssertionError(
                f"{count} × {name!r} did not come within {within_s} s, but {self.news[-20:]}"
            ) from None
        return self.of(name, where)

    async def kill(self) -> None:
        """End the process as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await asyncio.wait_for(self._process.wait(), 30)

    async def end(self) -> None:
        """End the process, whatever it does, and everything that reads from it."""
        if self.is_alive and self._process.stdin is not None:
            self._process.stdin.close()
            try:
                await asyncio.wait_for(self._process.wait(), 2)
            except TimeoutError:
                await self.kill()
        await asyncio.wait(self._readers, timeout=5)
        for reader in self._readers:
            reader.cancel()
        for answer in self._answers.values():
            answer.cancel()

    async def _read_stdout(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            if "news" in message:
                self.news.append((message["news"], *message["args"]))
                self._has_news.set()
                continue
            answer = self._answers.pop(message["call"])
            if answer.done():
                continue
            if "error" in message:
                answer.set_exception(NodeError(message["error"]))
            else:
                answer.set_result(message["ok"])
        await self._process.wait()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(NodeError(f"Node died: {self._stderr.decode(errors='replace')}"))
        self._has_news.set()

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(65536):
            self._stderr += chunk
