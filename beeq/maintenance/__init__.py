"""Duties for the whole queue, which any process may do for all.

``delayed_activator`` raises delayed jobs when they are due, ``eager_timer`` decides when it looks next, and
``stall_check`` requeues jobs whose worker is gone.

Nothing here belongs to one job or one worker: those are in ``beeq.worker``.
"""
