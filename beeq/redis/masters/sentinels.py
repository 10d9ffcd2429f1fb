"""Listens to one Sentinel's announcements of promotions; reconnects after a failure.

``+switch-master`` says that a failover is over; ``+promoted-slave``, seconds earlier, that the new master
takes writes: from then on what the old one acknowledges is lost. Before that, the third channel says which
replica is to become the master (``promotion.py``). A Sentinel that refuses subscriptions is polled each
second.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol

from beeq.errors import DutySilent, RedisError, RedisRefused, RedisUnavailable
from beeq.redis.masters.fleet import Address, OpenSentinel
from beeq.redis.masters.promotion import OpenServer, until_promoted
from beeq.redis.resp import RespProtocol, pack, settle
from beeq.redis.retry_delay import RetryDelay
from beeq.supervision.duty import Duty, contained
from beeq.supervision.supervised_task import SupervisedTask

logger = logging.getLogger("beeq")

_SWITCHED, _PROMOTED, _PROMOTING = "+switch-master", "+promoted-slave", "+failover-state-wait-promotion"
_CHANNELS = (_SWITCHED, _PROMOTED, _PROMOTING)
#: How long a Sentinel may take to answer.
_ANSWER_S = 2.0
#: After so long a silence the Sentinel gets a PING.
_PING_AFTER_S = 3.0
_ASK_AGAIN_S = 1.0
#: It hangs if it has given no sign of life at so many looks in a row, which are a second apart.
_MOST_SILENT_LOOKS = 10
_FIRST_RETRY_MS, _LONGEST_RETRY_MS = 100, 2000


class OnSwitch(Protocol):
    """Called at a failover."""

    def __call__(self, old: Address, new: Address, *, is_over: bool) -> object:
        """``new`` has been promoted instead of ``old``; the Sentinels name it once the failover is over."""


class SentinelListener:
    """Listens to one Sentinel from ``start`` until ``stop``, in one event loop.

    Args:
        name: the master's.
        address: of the Sentinel, for the log.
        open_sentinel: opens a connection to it.
        open_server: opens one to a server of the fleet.
        on_switch: called with the old and the new master's address, and whether the failover is over.
        on_master: called with the master's address and the Sentinel's count of failovers.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        open_sentinel: OpenSentinel,
        *,
        open_server: OpenServer,
        on_switch: OnSwitch,
        on_master: Callable[[Address, int], object],
    ) -> None:
        self._name = name
        self._where = f"the Sentinel at {address[0]}:{address[1]}"
        self._open = open_sentinel
        self._open_server = open_server
        self._polled: Address | None = None  # the master in the Sentinel's last reply
        self._promoting: asyncio.Task[BaseException | None] | None = None
        self._on_switch = on_switch
        self._on_master = on_master
        self._resp: RespProtocol | None = None
        #: The second question alone names the new master while the failover is under way, but gives no count.
        self._questions = (
            pack("SENTINEL", "MASTER", name),
            pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name),
        )
        self._retry_delay = RetryDelay(_FIRST_RETRY_MS, _LONGEST_RETRY_MS)
        self._is_heard = True  # so that the first failure is logged
        self._is_refused = False  # to subscribe
        self._task = SupervisedTask(
            "sentinel", self.run, patience_s=float(_MOST_SILENT_LOOKS), on_error=self._broke
        )
        self._seen_steps = self._silent_looks = 0
        self._is_dialling = False  # which has a bound of its own

    def start(self) -> None:
        """Begin, in the running loop."""
        self._task.start()

    async def stop(self) -> None:
        """End for good."""
        self.cancel()
        await self._task.stop(1)
        if self._promoting is not None:
            await asyncio.wait([self._promoting], timeout=1)

    def cancel(self) -> None:
        """End for good, without waiting for it."""
        self._task.cancel()
        if self._promoting is not None:
            self._promoting.cancel()

    def look(self) -> None:
        """Begin again if it hangs. Looks are counted, not time: while the loop is blocked, nobody hangs."""
        duty = self._task.duty
        is_silent = duty.steps == self._seen_steps and not self._is_dialling
        self._silent_looks = self._silent_looks + 1 if is_silent else 0
        self._seen_steps = duty.steps
        if self._silent_looks > _MOST_SILENT_LOOKS:
            self._silent_looks = 0
            duty.on_silent(DutySilent(duty.name, _MOST_SILENT_LOOKS * 1000))

    @staticmethod
    def _broke(error: BaseException) -> None:
        logger.error("a Sentinel's listener ended: %s", error)

    async def run(self, duty: Duty) -> None:
        """Listen, until cancelled."""
        while True:
            duty.turn()
            try:
                await self._listen(duty)
            except RedisError as error:
                if self._is_heard:
                    logger.warning("%s cannot be heard, and is tried again: %s", self._where, error)
                self._is_heard = False
            finally:
                resp, self._resp = self._resp, None
                if resp is not None:
                    resp.close()
            await self._retry_delay.wait()

    async def _listen(self, duty: Duty) -> None:
        """Never return; raise what ended the connection, or RedisUnavailable once it is silent."""
        self._is_dialling = True
        try:
            resp = self._resp = await self._open(self._heard)
        finally:
            self._is_dialling = False
        is_subscribed = await self._subscribe(resp)
        if not self._is_heard:
            logger.warning("%s is heard again", self._where)
        self._is_heard = True
        self._retry_delay.reset()
        while True:
            duty.turn()
            await self._until_ended(resp, _PING_AFTER_S if is_subscribed else _ASK_AGAIN_S)
            if not is_subscribed:
                self._take(*await self._ask(resp, *self._questions))
                continue
            asked_at_s = asyncio.get_running_loop().time()
            if resp.heard_at < asked_at_s - _PING_AFTER_S:
                resp.send(pack("PING"))
                await self._until_ended(resp, _ANSWER_S)
                if resp.heard_at < asked_at_s:
                    raise RedisUnavailable("it does not answer")

    async def _subscribe(self, resp: RespProtocol) -> bool:
        """Ask who is the master, and subscribe, in one write: no switch is missed in between.

        Returns whether at least one of the channels will be heard.
        """
        subscriptions = [pack("SUBSCRIBE", channel) for channel in _CHANNELS]
        master, address, *confirmed = await self._ask(resp, *self._questions, *subscriptions)
        self._take(master, address)
        refused = [reply for reply in confirmed if isinstance(reply, RedisRefused)]
        if len(refused) < len(_CHANNELS):
            return True
        if not self._is_refused:
            self._is_refused = True
            logger.warning(
                "%s lets nobody subscribe, so it is asked once a second: %s", self._where, refused[0]
            )
        return False

    @staticmethod
    async def _ask(resp: RespProtocol, *packed: bytes) -> list[Any]:
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        resp.ask(packed, lambda replies, error: settle(answered, replies, error), timeout_s=_ANSWER_S)
        return await answered

    @staticmethod
    async def _until_ended(resp: RespProtocol, longest_s: float) -> None:
        await asyncio.wait([resp.ended], timeout=longest_s)
        if resp.ended.done():
            raise resp.ended.result()

    def _take(self, master: Any, promoted: Any) -> None:
        """Take a Sentinel's replies; one that does not know the master names none.

        A Sentinel that refuses SENTINEL MASTER gives no count: then a change of its reply counts as news.
        """
        try:
            new = promoted[0].decode(), int(promoted[1])
        except (LookupError, ValueError, TypeError, AttributeError):
            return
        before, self._polled = self._polled or new, new
        try:
            facts = dict(zip(master[::2], master[1::2], strict=False))
            old = facts[b"ip"].decode(), int(facts[b"port"])
            epoch = int(facts.get(b"config-epoch", 0))
        except (LookupError, ValueError, TypeError, AttributeError):
            if before != new:
                self._on_switch(before, new, is_over=True)
            return
        if old != new:
            self._on_switch(old, new, is_over=False)
        else:
            self._on_master(new, epoch)

    def _heard(self, message: Any) -> None:
        if not isinstance(message, list) or message[0] != b"message":
            return
        try:
            _, channel, text = message
            words = text.decode(errors="replace").split(" ")
            if channel == _SWITCHED.encode():
                name, old_host, old_port, new_host, new_port = words
            elif words[4] == "@":
                _kind, _name, new_host, new_port, _at, name, old_host, old_port = words
            else:
                return
            old, new = (old_host, int(old_port)), (new_host, int(new_port))
        except (ValueError, IndexError):
            return  # of another shape
        if name != self._name:
            return
        if channel != _PROMOTING.encode():
            self._on_switch(old, new, is_over=channel == _SWITCHED.encode())
        elif self._promoting is None or self._promoting.done():
            self._promoting = asyncio.get_running_loop().create_task(
                contained(functools.partial(self._await_promotion, old, new)), context=Context()
            )

    async def _await_promotion(self, old: Address, new: Address) -> None:
        """Take the news from the new master itself; else the Sentinel announces it later."""
        await until_promoted(self._open_server, new)
        self._on_switch(old, new, is_over=False)
