"""The status mirror: what happens to jobs in Redis ends up in MongoDB, late rather than never.

Every change of a job in a mirrored queue leaves its id in an outbox, in the same step (``lua/``). The
writer takes ids from there and writes where their jobs stand by now (``writer.py``); the reconciler
compares, for what nobody noted (``reconciler.py``). No job ever waits for either.
"""
