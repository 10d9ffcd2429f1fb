"""Attempts: an attempt is one run of a handler, from its start to its end.

``runner`` starts handlers, and ends them when their time is over; coroutines run on the loop, plain functions
in ``thread_pool``, or in child processes (``processes``). Knows no Redis. Not here: the choice of the next
job (``beeq.worker.scheduling``), and recording outcomes (``beeq.worker.pump``).
"""
