"""The worker's decisions: which call to Redis, which fetch, which handler comes next.

``scheduler`` decides, ``actions`` are what it decides on, ``claims`` and ``pending_outcomes`` what it holds.

No IO, no clock, no asyncio here: ``beeq.worker.pump`` says what happens, and does what is decided.
"""
