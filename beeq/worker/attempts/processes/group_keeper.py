"""Lets no process group outlive this process, also when it is killed outright.

A killed process can do nothing, its children may be killed with it, and the kernel's death signal reaches
only these, not the processes they have started. So a small process in a session of its own watches this one,
and kills the groups when it is gone. The death signal stays, for the moment between the start of a child and
its registration with the keeper.

All calls run in the loop's thread without waiting; a keeper that was killed is replaced.
"""

import asyncio
import functools
import logging
import os
import socket
import subprocess
import sys
from contextlib import suppress

from beeq.client.closing import within
from beeq.process import call_in_thread, plain_environment
from beeq.worker.attempts.processes import keeper_main

logger = logging.getLogger("beeq")

#: A keeper that has ended is replaced after this long.
_AGAIN_S = 0.5
#: How long it may take to end.
_END_S = 3.0


class GroupKeeper:
    """Has a keeper's process while there are groups; made and used in a running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._groups: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._again: asyncio.TimerHandle | None = None
        self._is_closed = False

    def add(self, group: int) -> None:
        """Let the group end with this process. Raises OSError if the keeper could not be started."""
        self._groups.add(group)
        if self._process is None and self._again is None and not self._is_closed:
            self._start()
        else:
            self._send(group)

    def end(self, group: int) -> None:
        """Forget the group, whose leader has ended; the rest of its session is killed."""
        self._groups.discard(group)
        self._send(-group)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
                    # It has the groups from the beginning: we may be killed at any moment.
                    [
                        sys.executable,
                        "-I",
                        "-S",
                        keeper_main.__file__,
                        str(os.getpid()),
                        *map(str, self._groups),
                    ],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    env=plain_environment(os.environ),
                    start_new_session=True,
                )
            except BaseException:
                ours.close()
                raise
        ours.settimeout(0)
        self._link = ours
        self._loop.add_reader(ours, self._hung_up)

    def _send(self, number: int) -> None:
        if self._link is not None:
            with suppress(OSError):  # it has ended, which its link reports
                self._link.send(b"%d\n" % number)

    def _hung_up(self) -> None:
        """Replace the keeper: it was killed, for it ends after us."""
        self._hang_up()
        logger.warning("the keeper of child processes ended; starting another one")
        self._again = self._loop.call_later(_AGAIN_S, self._start_again)

    def _start_again(self) -> None:
        self._again = None
        if self._process is not None:
            self._process.poll()  # which reaps it
        try:
            self._start()
        except OSError as error:
            logger.warning("the keeper of child processes could not be started: %s", error.strerror)
            self._again = self._loop.call_later(_AGAIN_S, self._start_again)

    def leave(self) -> None:
        """Let the keeper kill the remaining groups, and end."""
        self._is_closed = True
        if self._again is not None:
            self._again.cancel()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._link is not None:
            self._loop.remove_reader(self._link)
            self._link.close()
            self._link = None

    async def close(self) -> None:
        """End the keeper, which kills the remaining groups; return when it has ended."""
        self.leave()
        if self._process is not None:
            wait = functools.partial(self._process.wait, _END_S)
            with suppress(subprocess.TimeoutExpired):
                await within(_END_S, call_in_thread(wait))
