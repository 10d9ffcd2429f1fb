"""The page that a worker serves: its port, opened before anything forks, and the process that serves it.

It is a process of its own: visitors take no time from the jobs' event loop, and a fault of the page does not
end a worker. The first of several worker processes keeps it. It ends when its standard input does, whose
other end the worker holds; through it come the URLs and prefixes, so that no list of processes shows them.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from socket import socket
from typing import Any, Self

import click

from beeq import Queue
from beeq.errors import text_of
from beeq.logs.records import log_event
from beeq.logs.setup import LogSetup, configure_child, setup_of_log
from beeq.process import LastResort, process_name
from beeq.redis.retry_delay import RetryDelay
from beeq_cli.monitoring import listener, url_of
from beeq_cli.running import FAILURE, run

#: How long the process may take to end once its worker has.
_END_S = 2.0
#: … and so much later it is killed.
_KILL_S = 1.0
#: The delay before it is started again; it doubles.
_FIRST_RETRY_MS = 1_000
_LONGEST_RETRY_MS = 60_000
_BOOT = """\
import json, sys
facts = json.loads(sys.stdin.buffer.readline())
sys.path[:] = facts["path"]
from beeq_cli.page import serve
serve(facts)
"""


def open_page_port(port: int | None, address: str) -> socket | None:
    """Open the page's port if it is asked for; raises a ClickException if it cannot be served there."""
    if port is None:
        return None
    try:
        from beeq.web import policy_from_environment  # noqa: PLC0415 - an extra
        from beeq.web.policy import address_of  # noqa: PLC0415 - likewise

        needs_token = policy_from_environment(os.environ).needs_token
    except ImportError as error:  # it names the extra
        raise click.ClickException(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    listening = listener(address, port)
    bound = address_of(listening.getsockname()[0])
    if not needs_token and not (bound is not None and bound.is_loopback):
        listening.close()
        raise click.UsageError(f"{address} is not loopback: --web-port needs BEEQ_WEB_TOKEN there")
    return listening


@dataclass(frozen=True, slots=True)
class PageTarget:
    """The queues of the page: those of one Redis, under these prefixes; and their mirror."""

    url: str
    prefixes: tuple[str, ...]
    shown: str
    mongo_url: str | None
    mongo_id_type: str

    @classmethod
    def of(cls, queues: Sequence[Queue], mongo_url: str | None, mongo_id_type: str) -> PageTarget:
        """Return the target for the page of a worker on these queues: the Redis of the first one.

        Raises ValueError if that one was made with a client, which another process cannot use.
        """
        first = queues[0]
        url = first.connector.url
        if not url:
            raise ValueError(f"--web-port needs Redis's URL, and queue {first.name} was made with a client")
        prefixes = dict.fromkeys(each.settings.prefix for each in queues if each.connector.url == url)
        return cls(url, tuple(prefixes), first.connector.shown, mongo_url, mongo_id_type)


class PageProcess:
    """Serves the page on ``listening`` while its block lasts, in a process that is replaced if it dies."""

    def __init__(self, listening: socket, target: PageTarget) -> None:
        self._listener = listening
        self._target = target
        self._lock = threading.Lock()  # of the two below
        self._is_over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start, and log its address."""
        what = f"queues on {self._target.shown}, prefix {', '.join(self._target.prefixes)}"
        log_event(logging.INFO, f"Page on {url_of(self._listener)}/: {what}")
        threading.Thread(target=self._keep, name="beeq-page", daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        """End the process; return when it has ended, some seconds later at the latest."""
        with self._lock:
            self._is_over.set()
            process = self._process
        if process is None or process.stdin is None:
            return
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(_END_S + _KILL_S)
        except subprocess.TimeoutExpired:
            process.kill()

    def _keep(self) -> None:
        delay = RetryDelay(_FIRST_RETRY_MS, _LONGEST_RETRY_MS)
        while not self._is_over.is_set():
            how = self._run()
            if self._is_over.is_set() or not how:
                return
            log_event(logging.ERROR, f"the page's process {how}; it is started again, the worker goes on")
            self._is_over.wait(delay.take_s())

    def _run(self) -> str:
        """Start the process and wait for its end; return the error, or ""."""
        try:
            with self._lock:
                if self._is_over.is_set():
                    return ""
                process = self._process = self._started()
        except OSError as error:
            return f"could not be started: {text_of(error)}"
        code = process.wait()
        return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}" if code else ""

    def _started(self) -> subprocess.Popen[bytes]:
        setup = setup_of_log()
        facts = {
            "path": [entry for entry in sys.path if isinstance(entry, str)],
            "fd": self._listener.fileno(),
            "redis": self._target.url,
            "prefixes": self._target.prefixes,
            "mongo": self._target.mongo_url,
            "mongo_id_type": self._target.mongo_id_type,
            "log": None if setup is None else asdict(setup),
            "worker": process_name(),
        }
        process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-P", "-c", _BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(self._listener.fileno(),),
            start_new_session=True,  # Ctrl-C is the worker's: the page stays while its jobs end
        )
        assert process.stdin is not None  # noqa: S101 - a pipe
        with suppress(OSError):  # it has ended: its exit code shows it
            process.stdin.write(json.dumps(facts).encode() + b"\n")
            process.stdin.flush()
        return process


def serve(facts: Mapping[str, Any]) -> None:
    """Serve the page; this is the main function of its process."""
    log = None if facts["log"] is None else LogSetup(**facts["log"])
    configure_child(log, worker=facts["worker"])
    threading.Thread(target=_end_with_worker, name="beeq-worker", daemon=True).start()
    from beeq.web import dashboard, server  # noqa: PLC0415 - an extra

    has_access_log = log is not None and log.is_verbose
    if has_access_log:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    names = ("redis", "prefixes", "mongo", "mongo_id_type")
    page = dashboard(**{name: facts[name] for name in names})
    listening = socket(fileno=facts["fd"])
    run(server.serve(page, listening, on_serving=lambda: None, has_access_log=has_access_log))


def _end_with_worker() -> None:
    """Stop as by a signal when the worker has ended, or closes its end."""
    while sys.stdin.buffer.read(1):
        continue
    LastResort(_END_S, code=FAILURE).begin()
    os.kill(os.getpid(), signal.SIGTERM)
