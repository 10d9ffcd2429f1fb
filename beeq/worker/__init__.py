"""The consuming side of a queue: takes jobs, runs them, and records how they end.

``consumer`` starts and stops, ``worker`` wires the parts: ``scheduling`` decides what comes next, ``pump``
talks to Redis, ``attempts`` run the handlers. Signs of life come from ``heartbeat`` with ``running_notes``,
and from ``health``; ``watch`` looks for defects. ``parts`` builds a queue of its parts, ``supervisor`` runs
several worker processes. Not here: saving and reading jobs (``beeq.client``), and periodic duties for a whole
queue (``beeq.maintenance``).
"""
