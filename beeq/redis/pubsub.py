"""Hears a queue's channels, for as long as it is open: reconnects, resubscribes, says so.

Passes raw messages on; ``beeq.client.session`` says who reads them.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from beeq.errors import RedisError, RedisRefused, RedisUnavailable
from beeq.redis.connector import Connector
from beeq.redis.resp import RespProtocol, pack
from beeq.redis.retry_delay import RetryDelay

#: After this much silence the server is asked whether it is still there.
PING_AFTER_S = 10.0


class Subscriber:
    """One connection in subscribed mode. ``add`` channels any time; ``close`` ends it.

    ``on_message`` is called with channel name and message; ``on_error`` with each failure, and the subscriber
    goes on by itself. ``on_subscribed`` is called with the channel's name whenever Redis confirms a
    subscription, also again after a reconnection: what was published in between is lost, so look then.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        on_message: Callable[[str, bytes], None],
        on_subscribed: Callable[[str], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._connector = connector
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._on_error = on_error
        self._confirmed: dict[str, asyncio.Event] = {}  # channel → set while subscribed
        self._resp: RespProtocol | None = None
        self._is_silent = True
        self.retry_delay = RetryDelay(100, 5000)
        self._task: asyncio.Task[None] | None = None

    def has(self, channel: str) -> bool:
        """Return whether Redis has confirmed the channel's subscription."""
        return channel in self._confirmed and self._confirmed[channel].is_set()

    async def add(self, channel: str, *, timeout_ms: int) -> None:
        """Subscribe to ``channel`` and wait until Redis has confirmed that.

        Raises RedisUnavailable if that takes too long; it will be confirmed once Redis is back.
        """
        is_confirmed = self._confirmed.get(channel)
        if is_confirmed is None:
            is_confirmed = self._confirmed[channel] = asyncio.Event()
            self._send("SUBSCRIBE", channel)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                await is_confirmed.wait()
        except TimeoutError:
            raise RedisUnavailable("the subscription was not confirmed in time") from None

    async def _run(self) -> None:
        while True:
            try:
                self._resp = await self._connector.connect(on_message=self._heard)
                self._send("SUBSCRIBE", *self._confirmed)
                await self._watch(self._resp)
            except RedisError as error:
                self._on_error(error)
            finally:
                self._hang_up(RedisUnavailable("the connection was closed"))
            await self.retry_delay.wait()

    async def _watch(self, resp: RespProtocol) -> None:
        """Return never; raise what ended the connection, or ``RedisUnavailable`` once it is silent."""
        is_pinged = False
        while True:
            self._is_silent = True
            await asyncio.wait([resp.ended], timeout=PING_AFTER_S)
            if resp.ended.done():
                raise resp.ended.result()
            if self._is_silent and is_pinged:
                raise RedisUnavailable("the event connection went silent")
            is_pinged = self._is_silent
            if is_pinged:
                self._send("PING")

    def _heard(self, message: Any) -> None:
        if self._resp is None:
            return  # what came together with the reason to hang up
        self._is_silent = False
        if isinstance(message, RedisRefused):
            self._hang_up(message)
            return
        kind, channel = message[0], message[1].decode()
        if kind == b"message":
            self._on_message(channel, message[2])
        elif kind == b"subscribe":
            self.retry_delay.reset()  # not before: Redis may let us in, and refuse this forever
            self._confirmed[channel].set()
            self._on_subscribed(channel)

    def _send(self, *command: str) -> None:
        if self._resp is not None:
            self._resp.send(pack(*command))

    def _hang_up(self, reason: RedisError) -> None:
        for is_confirmed in self._confirmed.values():
            is_confirmed.clear()
        resp, self._resp = self._resp, None
        if resp is not None:
            resp.close(reason)

    async def close(self) -> None:
        """Hang up."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=1)
