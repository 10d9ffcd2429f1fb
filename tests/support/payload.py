"""The real Payload in a process of its own, driven from a Python test (``tests/mirror/payload.mjs``)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any, Self

_DRIVER = Path(__file__).resolve().parents[1] / "mirror" / "payload.mjs"
#: Node has some hundred modules to load.
_START_S = 60.0
_CALL_S = 30.0


class PayloadError(Exception):
    """What Payload threw."""


class Payload:
    """One Payload over one database, by its local API. Every wait is bounded; an async context manager."""

    def __init__(self, modules: Path, url: str) -> None:
        self._modules = modules
        self._url = url
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        # Node finds packages from where a module lies, so it must lie beside them.
        driver = self._modules.parent / f"driver-{os.getpid()}.mjs"
        shutil.copy(_DRIVER, driver)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *("node", str(driver), self._url),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=self._modules.parent,
                env={"PATH": os.environ["PATH"], "NODE_ENV": "production"},
                limit=1 << 24,
            )
            assert await self._answer(_START_S) == "ready"
        except BaseException:
            await self._end()
            raise
        finally:
            driver.unlink()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self._end()

    async def _end(self) -> None:
        if self._process is not None:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.communicate()  # closes its pipes

    async def call(self, call: str, **options: Any) -> Any:
        """Call a method of Payload's local API; raise PayloadError if it throws."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"call": call, "options": options}).encode() + b"\n")
        return await self._answer(_CALL_S)

    async def jobs(self, *, depth: int = 0, **where: Any) -> list[dict[str, Any]]:
        """Return the jobs of which each field named equals the value."""
        conditions = {name: {"equals": value} for name, value in where.items()}
        found = await self.call("find", collection="queue-jobs", where=conditions, depth=depth, sort="jobId")
        docs: list[dict[str, Any]] = found["docs"]
        return docs

    async def _answer(self, limit_s: float) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), limit_s)
        if not line:
            raise PayloadError("Payload ended; its stderr says why")
        answer = json.loads(line)
        if "error" in answer:
            raise PayloadError(answer["error"])
        return answer["value"]
