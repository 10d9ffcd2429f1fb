"""A second process that ends this one in time, even if C code holds the interpreter for ever.

Then no thread and no signal handler runs here. It is for a command without a parent process, which would do
this. (The first process of a container cannot be killed from inside; stopping the container does it.)
"""

import logging
import os
import socket
import subprocess
import sys
from contextlib import suppress

from beeq.process import plain_environment
from beeq.supervision import end_guard_main

logger = logging.getLogger("beeq")

#: How long to wait for the guard's end, which is immediate as a rule.
_END_S = 1.0


class EndGuard:
    """Guards this process from its construction until ``close``, if the guard can be started.

    Args:
        signals: where the numbers of signals are read, see ``signal_thread``.
        limits_s: how long the process may go on after one stop signal that no thread reads, and after a
            second one.
    """

    def __init__(self, signals: socket.socket, limits_s: tuple[float, float]) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
                [
                    *(sys.executable, "-I", "-S", end_guard_main.__file__, str(os.getpid())),
                    *(str(signals.fileno()), *map(str, limits_s)),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env=plain_environment(os.environ),
                pass_fds=(signals.fileno(),),
                start_new_session=True,
            )
        except OSError as error:
            logger.warning("a worker's guard could not be started: %s", error.strerror)

    def begin(self, limit_s: float) -> None:
        """Limit the process's remaining time; may be called in any thread."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError, ValueError):  # it has ended, or is closed
                os.write(self._process.stdin.fileno(), b"%f\n" % limit_s)

    def close(self) -> None:
        """End the guard."""
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
