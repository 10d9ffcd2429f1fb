"""The background duties of an open queue, and their watchdog.

``duty`` is the state of one duty, ``supervised_task`` a duty that is a coroutine, ``duties`` those of one
owner with their watchdog. A duty that ends in any way, or hangs, is reported and restarted, a little later
each time. Duties run in an empty context: they outlive their starters and the values of their context
variables. ``fence`` isolates third-party code, ``signal_thread`` receives signals even if a loop is blocked,
``loop_watch`` reports a blocked loop, ``end_guard`` ends the process when no thread can run. Knows nothing of
Redis, and of jobs only their ids.
"""
