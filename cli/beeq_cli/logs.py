"""How the commands log: to standard error, every failure of a job, and an outage of Redis once."""

from typing import Any

from beeq import Queue
from beeq.logs import configure
from beeq_cli.options import Common
from beeq_cli.outages import Outages


def set_up(common: Common, log_format: Any = "text") -> None:
    """Send the process's log to standard error, as the options say."""
    configure(log_format, is_verbose=common.is_verbose, is_quiet=common.is_quiet, logs_all=True)


def follow(queue: Queue) -> None:
    """Log the queue's errors: the same error of many queues is one line."""
    _outages.follow(queue)


_outages = Outages()
