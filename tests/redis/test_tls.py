"""A queue on a Redis that speaks TLS: everything goes encrypted, on both loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from beeq import Queue
from beeq.errors import RedisUnavailable
from tests.support.certificate import CERTIFICATE, server_context
from tests.support.proxy import proxy_to
from tests.support.server import Server

Loop = Callable[[], asyncio.AbstractEventLoop]


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_jobs_of_any_size_are_enqueued_and_worked_over_tls(
    loop_factory: Loop, valkey: Server, queue_name: str, tmp_path: Path
) -> None:
    authority = tmp_path / "authority.pem"
    authority.write_text(CERTIFICATE)
    payloads = ["ключ", "x" * 5_000_000, list(range(1000))]

    async def work() -> list[Any]:
        async with proxy_to(valkey.port, tls=server_context(tmp_path)) as proxy:
            url = f"{proxy.url}?ssl_ca_certs={authority}&ssl_check_hostname=false"
            async with Queue(queue_name, redis=url) as queue:

                @queue.process(concurrency=3)
                async def handler(job: Any) -> Any:
                    return job.data

                jobs = [await queue.enqueue(payload) for payload in payloads]
                return [await job.result(timeout=20_000) for job in jobs]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(work()) == payloads


async def test_a_server_with_an_unknown_certificate_is_refused(
    valkey: Server, queue_name: str, tmp_path: Path
) -> None:
    async with proxy_to(valkey.port, tls=server_context(tmp_path)) as proxy:
        async with asyncio.timeout(10):
            queue = Queue(queue_name, redis=proxy.url, redis_timeout=1000)
            with pytest.raises(RedisUnavailable, match="(?i)certificate"):
                await queue.connect()
            await queue.close()
