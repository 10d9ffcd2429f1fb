"""The parts of a queue that every process needs: opening and closing, saving, reading, changing, hearing.

``Queue`` is built of these; they share its ``QueueContext``. Running jobs is not here but in ``beeq.worker``;
what is done to all jobs of a queue now and then (delayed jobs, stalled jobs) is in ``beeq.maintenance``.
"""
