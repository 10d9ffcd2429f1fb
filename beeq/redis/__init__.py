"""The border to Redis.

``urls`` reads URLs, ``connector`` connects, ``resp`` speaks the protocol, ``connection`` comes back after a
failure, ``masters`` drops connections to a replaced master, ``pipeline`` lets many callers share
one, ``pubsub`` subscribes, ``scripts`` calls the Lua scripts.

Only this package uses redis-py and hiredis, and turns their errors into beeq's. It knows no queue and no job:
what a command means to them is decided in ``beeq.client``, ``beeq.maintenance`` and ``beeq.worker``.
"""
