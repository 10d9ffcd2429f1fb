"""Finds the queue of a job by its id alone: among the built-in queues, and those that Redis holds."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import click

from beeq import JobDetails, Queue, RedisRefused
from beeq.client.reader import Reader
from beeq.job import Job
from beeq.jobs import JOB_TYPES
from beeq.operations.queue_names import find_queue_names, queues_with
from beeq.protocol.keys import Keys
from beeq.settings import Settings
from beeq_cli.console import say
from beeq_cli.options import Common, option, read_mongo_url
from beeq_cli.running import connect, queues_to_look_into

queue_option = option(
    "--queue",
    "queue_name",
    metavar="QUEUE",
    help="The jobs' queue; found by itself unless several fit.",
)


#: How many queues' counters are read, and the most digits of an id for that.
_MOST_COUNTERS, _MOST_DIGITS = 1000, 17
#: The most queues opened to look for a job, a connection each; the most names in a line.
_MOST_OPENED, _MOST_NAMED = 50, 10


@dataclass(frozen=True, slots=True)
class JobTarget:
    """A job, and the queue that has it, which is open."""

    job_id: str
    queue: Queue
    details: JobDetails[Job]


class QueueFinder:
    """Opens queues as they are needed; ``async with`` closes them."""

    def __init__(self, common: Common, queue_name: str | None, *, wait_replicas: int = 0) -> None:
        if queue_name == "":
            raise click.UsageError("QUEUE is empty")
        self._common = common
        self._queue_name = queue_name
        self._wait_replicas = wait_replicas
        self._mongo = None if queue_name is not None and queue_name not in JOB_TYPES else read_mongo_url(None)
        self._open: dict[str, Queue] = {}
        self._names: list[str] | None = None if queue_name is None else [queue_name]

    async def __aenter__(self) -> Self:
        """Open nothing yet."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close every queue."""
        for queue in self._open.values():
            await queue.close()

    async def queue(self, name: str) -> Queue:
        """Return the queue, open."""
        if name not in self._open:
            mirrored = name in JOB_TYPES and self._mongo is not None
            (queue,) = queues_to_look_into(
                [name], self._common, mirrored=mirrored, wait_replicas=self._wait_replicas
            )
            self._open[name] = queue
            await connect(queue)
        return self._open[name]

    async def _all_names(self, queue: Queue) -> list[str]:
        if self._names is None:
            found, is_complete = await find_queue_names(
                queue.pipeline, queue.settings.prefix, registry=queue.keys.queues
            )
            self._names = list(dict.fromkeys([*JOB_TYPES, *found]))
            if not is_complete and not self._common.is_quiet:
                say("Not all of Redis's keys could be looked at; name the queue of other jobs with --queue")
        return self._names

    async def that_gave_out(self, job_id: str) -> list[str]:
        """Return the names of the queues, as far as they are known, whose counter has given out this id."""
        if not job_id.isdecimal():
            return []
        first = await self.queue(self._queue_name or next(iter(JOB_TYPES)))
        prefix = Settings(prefix=self._common.prefix).prefix
        found = []
        for name in (await self._all_names(first))[:_MOST_COUNTERS]:
            with suppress(RedisRefused):  # on another node of a cluster, say
                stats = await Reader(first.pipeline, Keys(prefix, name)).stats(with_age=False)
                if len(job_id) < _MOST_DIGITS and 0 < int(job_id) <= stats.newest_job:
                    found.append(name)
        return found

    async def having(self, job_id: str, *, is_gone_too: bool = False) -> list[JobTarget]:
        """Return the job of that id in each queue that has one; too many of them are a usage error."""
        if not job_id:
            raise click.UsageError("ID is empty")
        first = await self.queue(self._queue_name or next(iter(JOB_TYPES)))
        prefix = Settings(prefix=self._common.prefix).prefix
        names = await queues_with(
            first.pipeline, prefix, await self._all_names(first), job_id, is_gone_too=is_gone_too
        )
        if len(names) > _MOST_OPENED:
            raise click.UsageError(_several(job_id, names))
        targets = []
        for name in names:
            queue = await self.queue(name)
            details = await queue.inspect_job(job_id)
            if details is not None:
                targets.append(JobTarget(job_id, queue, details))
        return targets


def only_one(job_id: str, targets: Sequence[JobTarget]) -> JobTarget | None:
    """Return the one target, or None; several are a usage error, which names them."""
    if len(targets) > 1:
        raise click.UsageError(_several(job_id, [target.queue.name for target in targets]))
    return targets[0] if targets else None


def _several(job_id: str, names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    shown = ", ".join(names[:_MOST_NAMED])
    return f"several queues have a job {job_id}: {shown}{more}; say which one is meant (--queue)"
