"""``beeq cancel``: ends a job that waits, is delayed, or runs."""

import sys
from collections.abc import Sequence

import click

from beeq import Queue
from beeq.jobs import JOB_TYPES
from beeq.service import find_unfinished
from beeq_cli.console import complain, print_id, print_json
from beeq_cli.options import Common, common_options, option, read_mongo_url, wait_replicas_option
from beeq_cli.running import FAILURE, opened, queues_to_look_into, run


@click.command(short_help="End a job, running or not.")
@click.argument("job_id", metavar="ID")
@option(
    "--queue", "queue_name", metavar="QUEUE", help="The job's queue; the four built-in ones unless named."
)
@option("--json", "as_json", is_flag=True, help="Print an object with id and queue.")
@wait_replicas_option()
@common_options()
@click.pass_obj
def cancel(common: Common, job_id: str, queue_name: str | None, as_json: bool, wait_replicas: int) -> None:
    """End the job ID and print it; a running one is stopped where it runs.

    Exits with 1 if there is no such job, or it has ended.
    """
    if not job_id or queue_name == "":
        raise click.UsageError("ID is empty" if not job_id else "QUEUE is empty")
    names = JOB_TYPES if queue_name is None else [queue_name]
    is_mirrored = names is JOB_TYPES or queue_name in JOB_TYPES
    mirrored = is_mirrored and read_mongo_url(None) is not None
    queues = queues_to_look_into(names, common, mirrored=mirrored, wait_replicas=wait_replicas)
    sys.exit(run(_cancel(queues, job_id, as_json=as_json)))


async def _cancel(queues: Sequence[Queue], job_id: str, *, as_json: bool) -> int:
    async with opened(*queues):
        try:
            queue = await find_unfinished(queues, job_id)
        except ValueError as error:
            raise click.UsageError(f"{error} (--queue)") from None
        if queue is None or not await queue.cancel_job(job_id):
            complain(f"no job {job_id} waits or runs")
            return FAILURE
        if as_json:
            print_json({"id": job_id, "queue": queue.name})
        else:
            print_id(job_id)
        return 0
