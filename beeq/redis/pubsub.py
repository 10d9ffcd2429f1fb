"""Hears a queue's channels while the queue is open: reconnects, resubscribes, and reports both.

Passes raw messages on; ``beeq.client.session`` registers their readers.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from beeq.errors import QueueClosed, RedisError, RedisRefused, RedisUnavailable
from beeq.redis.connection import not_now
from beeq.redis.connector import Connector
from beeq.redis.resp import RespProtocol, pack, settle
from beeq.redis.retry_delay import RetryDelay
from beeq.supervision.duties import Duties
from beeq.supervision.duty import Duty
from beeq.supervision.fence import limit
from beeq.supervision.supervised_task import SupervisedTask

#: After this much silence the server gets a PING.
PING_AFTER_S = 10.0
#: After so many failed connections in a row ``add`` raises, as a producer's command does.
_TRIES = 3


class Subscriber:
    """One connection in subscribed mode. ``add`` channels any time; ``close`` ends it.

    ``on_message`` is called with channel name and message; ``on_error`` with each failure, after which the
    subscriber goes on by itself. ``on_subscribed`` is called with the channel's name whenever Redis confirms
    a subscription, also after a reconnection: what was published in between is lost.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        on_message: Callable[[str, bytes], None],
        on_subscribed: Callable[[str], None],
        on_error: Callable[[BaseException], None],
        duties: Duties,
    ) -> None:
        self._connector = connector
        self._on_message = on_message
        self._on_subscribed = on_subscribed
        self._on_error = on_error
        self._confirmed: dict[str, asyncio.Event] = {}  # channel → set while subscribed
        self._asked: deque[str] = deque()  # channels whose SUBSCRIBE has no reply yet, in order
        self._adding: dict[str, list[asyncio.Future[None]]] = {}  # in the order of their calls
        self._asking_again: asyncio.TimerHandle | None = None
        self._pings: deque[asyncio.Future[None]] = deque()  # without a reply, in order
        self._failures = 0  # in a row
        self._is_closed = False
        self._resp: RespProtocol | None = None
        self._is_silent = True
        self.retry_delay = RetryDelay(100, 5000, news=lambda: connector.switches)
        self._duties = duties
        self._task: SupervisedTask | None = None

    def has(self, channel: str) -> bool:
        """Return whether Redis has confirmed the channel's subscription."""
        return channel in self._confirmed and self._confirmed[channel].is_set()

    async def add(self, channel: str, *, timeout_ms: int) -> None:
        """Subscribe to ``channel`` and wait until Redis has confirmed that.

        Raises:
            RedisRefused: the Redis user may not hear it; a further call asks again.
            RedisUnavailable: Redis is away, or that takes too long; it will be confirmed once Redis is back.
                QueueClosed.
        """
        if self._is_closed:
            raise QueueClosed
        is_confirmed = self._confirmed.get(channel)
        if is_confirmed is None:
            is_confirmed = self._confirmed[channel] = asyncio.Event()
            self._subscribe(channel)
        if self._task is None:
            self._task = self._duties.start("subscriber", self.run)
        if is_confirmed.is_set():
            return
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._adding.setdefault(channel, [])
        waiting.append(answered)
        try:
            async with asyncio.timeout(None) as bound:
                limit(bound, timeout_ms / 1000)
                await answered
        except TimeoutError:
            away = "Redis is away" if self._resp is None else "Redis did not confirm the subscription in time"
            raise RedisUnavailable(away) from None
        finally:
            waiting.remove(answered)

    async def catch_up(self) -> None:
        """Return when all that was published before this call has been heard.

        Raises RedisUnavailable: there is no connection, or it ended meanwhile.
        """
        await self._ping()

    def _ping(self) -> asyncio.Future[None]:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._resp is None:
            answered.set_exception(RedisUnavailable("Redis is away"))
        else:
            self._pings.append(answered)
            self._send("PING")
        return answered

    def _ponged(self, error: RedisError | None = None) -> None:
        if not self._pings:
            return  # no PING was sent
        answered = self._pings.popleft()
        settle(answered, None, error)
        if error is not None and not answered.cancelled():
            answered.exception()  # no caller awaits the watch's own pings

    def _answer(self, channel: str, error: Exception | None) -> bool:
        """Wake the callers that add the channel; return whether there were any."""
        waiting = self._adding.pop(channel, [])
        for answered in waiting:
            settle(answered, None, error)
        return bool(waiting)

    async def run(self, duty: Duty) -> None:
        """Hear the channels, until cancelled."""
        while True:
            try:
                self._resp = await self._connector.connect(on_message=self._heard)
                self._subscribe(*self._confirmed)
                duty.turn()
                await self._watch(self._resp, duty)
            except RedisError as error:
                self._failures += 1
                if self._failures >= _TRIES:
                    for channel in list(self._adding):
                        self._answer(channel, RedisUnavailable(str(error)))
                self._on_error(error)
            finally:
                self._hang_up(RedisUnavailable("the connection was closed"))
            duty.rests(self.retry_delay.next_ms / 1000)
            await self.retry_delay.wait()
            duty.rests(0.0)

    async def _watch(self, resp: RespProtocol, duty: Duty) -> None:
        """Never return; raise what ended the connection, or ``RedisUnavailable`` once it is silent."""
        is_pinged = False
        while True:
            self._is_silent = True
            await self._listen(resp, duty)
            if resp.ended.done():
                raise resp.ended.result()
            if self._is_silent and is_pinged:
                raise RedisUnavailable("the event connection went silent")
            is_pinged = self._is_silent
            if is_pinged:
                self._ping()

    @staticmethod
    async def _listen(resp: RespProtocol, duty: Duty) -> None:
        """Return after ``PING_AFTER_S``, or when the connection has ended."""
        left_s = PING_AFTER_S
        while left_s > 0 and not resp.ended.done():
            duty.turn()
            step_s = min(left_s, duty.patience_s / 2)
            await asyncio.wait([resp.ended], timeout=step_s)
            left_s -= step_s

    def _heard(self, message: Any) -> None:
        if self._resp is None:
            return  # it came together with the reason to hang up
        self._is_silent = False
        if isinstance(message, RedisRefused):
            self._refused(message)
            return
        if message == b"PONG" or message[0] == b"pong":  # the first where nothing is subscribed
            self._ponged()
            return
        kind, channel = message[0], message[1].decode()
        if kind == b"message":
            self._on_message(channel, message[2])
        elif kind == b"subscribe":
            self.retry_delay.reset()  # not before: Redis may accept connections and refuse this forever
            self._failures = 0
            self._asked.remove(channel)
            self._confirmed[channel].set()
            self._answer(channel, None)
            self._on_subscribed(channel)

    def _refused(self, refusal: RedisRefused) -> None:
        """Raise it to the callers that add the channel, or retry later; hang up if it names no channel."""
        if refusal.code == "NOPERM" and not self._asked:
            self._ponged()  # it is the reply to PING: Redis is there
            return
        if not self._asked or not_now(refusal):
            self._hang_up(refusal)
            return
        channel = self._asked.popleft()
        if refusal.code == "NOPERM":
            refusal = RedisRefused(
                f"NOPERM the Redis user may not hear the channel {channel}; "
                f'it needs the rights &{channel} and +subscribe (ACL SETUSER; README, "Rights")'
            )
        if self._answer(channel, refusal):
            del self._confirmed[channel]
            return
        self._on_error(refusal)
        if self._asking_again is None:
            self._asking_again = asyncio.get_running_loop().call_later(
                self.retry_delay.take_s(), self._ask_again
            )

    def _ask_again(self) -> None:
        self._asking_again = None
        missing = [name for name, is_confirmed in self._confirmed.items() if not is_confirmed.is_set()]
        self._subscribe(*(name for name in missing if name not in self._asked))

    def _subscribe(self, *channels: str) -> None:
        """Ask for each channel by itself: one may be refused, and the others not."""
        if self._resp is not None:
            self._asked += channels
            for channel in channels:
                self._send("SUBSCRIBE", channel)

    def _send(self, *command: str) -> None:
        if self._resp is not None:
            self._resp.send(pack(*command))

    def _hang_up(self, reason: RedisError) -> None:
        self._asked.clear()
        while self._pings:
            self._ponged(reason)
        if self._asking_again is not None:
            self._asking_again.cancel()
            self._asking_again = None
        for is_confirmed in self._confirmed.values():
            is_confirmed.clear()
        resp, self._resp = self._resp, None
        if resp is not None:
            resp.close(reason)

    async def close(self) -> None:
        """Hang up for good; callers waiting in ``add`` get QueueClosed."""
        self._is_closed = True
        for channel in list(self._adding):
            self._answer(channel, QueueClosed())
        task, self._task = self._task, None
        if task is not None:
            await self._duties.stop(task)
