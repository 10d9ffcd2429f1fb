"""Polls the replica that a Sentinel is about to promote, until it is the master.

The Sentinel itself looks only once a second, and what the old master acknowledges meanwhile is lost. So once
a Sentinel announces that a replica is to become the master, beeq asks that replica twenty times a second.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable

from beeq.redis.masters.roles import QUESTIONS, Role, is_refused, role_in
from beeq.redis.resp import RespProtocol, settle

#: Opens a connection to the server of the fleet that is at a host and port; raises RedisError.
OpenServer = Callable[[tuple[str, int]], Awaitable[RespProtocol]]

_LOOK_S = 0.05
#: After this the Sentinel gives up promoting a replica.
_LONGEST_S = 10.0


async def until_promoted(open_server: OpenServer, address: tuple[str, int]) -> None:
    """Return once the server at ``address`` says that it is the master.

    Raises:
        TimeoutError: it did not within ten seconds.
        RedisError: it cannot be reached, or does not answer.
        LookupError: it does not say what it is.
    """
    async with asyncio.timeout(_LONGEST_S):
        resp = await open_server(address)
        try:
            while await _role_of(resp) is not Role.MASTER:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(_LOOK_S)
        finally:
            resp.close()


async def _role_of(resp: RespProtocol) -> Role:
    for question in QUESTIONS[:-1]:
        answered: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()
        resp.ask((question,), functools.partial(settle, answered), timeout_s=_LONGEST_S)
        reply = (await answered)[0]
        if not is_refused(reply):
            return role_in(reply)
    raise LookupError(QUESTIONS)
