"""The parts of a queue that every process needs, workers and producers alike.

``session`` opens and closes, ``producer`` saves, ``reader`` reads, ``commands`` changes jobs in Redis,
``results`` waits for results, ``event_hub`` delivers events, ``missed_ends`` looks for those that were lost,
``job_actions`` brings these together for jobs.

``Queue`` is built of these; they share its ``QueueContext``. Running jobs is not here but in ``beeq.worker``;
what is done to all jobs of a queue now and then (delayed jobs, stalled jobs) is in ``beeq.maintenance``.
"""
