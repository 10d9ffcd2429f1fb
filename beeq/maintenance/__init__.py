"""Duties for the whole queue, which any process may do for all: raising delayed jobs, finding stalled ones.

Nothing here belongs to one job or one worker: those are in ``beeq.worker``.
"""
