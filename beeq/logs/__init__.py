"""beeq's log: one line a record, escaped, bounded, without secrets, with facts as attributes.

All of it goes to the logger ``beeq`` and those below it. A record carries what it knows as attributes, for
any formatter:

==================  =====================================================================================
``queue``           the queue's name
``job``             the job's id
``attempt``         which attempt of the job it is, from 1 on (its record counts them up to 100)
``worker``          the process, as ``beeq:workers`` in Redis has it: ``<host>:<pid>:<8 digits>``
``duration_ms``     how long it took: an attempt, an outage of Redis, a block of the loop
``error``           the text of what was raised
``error_type``      the name of its class
==================  =====================================================================================

``JobLogFilter``, added to a handler of the program's, gives ``queue``, ``job``, ``attempt`` and ``worker``
also to what the program's own loggers say while a handler runs a job: in coroutines, threads and child
processes. ``configure`` sets up the whole log of a process as ``beeq worker`` does. A child process of a
handler (``executor="process"``) logs as its worker does, where that was set up by ``configure``.
"""

from beeq.logs.formatters import JobLogFilter, JSONFormatter, TextFormatter
from beeq.logs.setup import configure

__all__ = ["JSONFormatter", "JobLogFilter", "TextFormatter", "configure"]
