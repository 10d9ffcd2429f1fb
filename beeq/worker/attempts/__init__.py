"""Attempts: one run of a handler, from its start to how it ended.

``runner`` starts handlers, and ends them when their time is over; coroutines run on the loop, plain functions
in ``thread_pool``, or in child processes (``processes``). Knows no Redis. Not here: which job comes next
(``beeq.worker.scheduling``), and what Redis hears of an outcome (``beeq.worker.pump``).
"""
