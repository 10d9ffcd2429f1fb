"""The border to Redis: URLs, connections, pipelined calls, subscriptions and the Lua scripts.

Only this package knows redis-py and hiredis, and turns their errors into beeq's. Knows no queue and no job:
what a command means to them is decided in ``beeq.client``, ``beeq.maintenance`` and ``beeq.worker``.
"""
