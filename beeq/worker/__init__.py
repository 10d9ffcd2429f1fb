"""The consuming side of a queue: takes jobs, runs them, and records how they end.

``consumer`` starts and stops, ``worker`` wires the parts, ``pump`` and what it uses talk to Redis, ``runner``
runs handlers. Not here: saving and reading jobs (``beeq.client``), and what is done to all jobs of a queue
now and then (``beeq.maintenance``).
"""
