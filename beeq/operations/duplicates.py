"""Makes a new job of an old one."""

from beeq.client.job_actions import JobActions
from beeq.job import Job

#: The limits of an attempt, which the new job takes over.
_KEPT = ("retries", "backoff", "timeout")


async def duplicated(actions: JobActions, job: Job) -> Job:
    """Save a new job with the data and limits of another one, which is left as it is; return it."""
    new: Job = Job.new(actions, job.data, now_ms=actions.now_ms())
    new.options.update({name: job.options[name] for name in _KEPT if name in job.options})
    return await actions.save_or_find(new)
