"""``beeq explain``: why a job is where it is."""

import sys

import click

from beeq import Explanation
from beeq_cli.commands.operate.targets import QueueFinder, only_one, queue_option
from beeq_cli.console import complain, print_json, print_line
from beeq_cli.options import Common, common_options, examples, option
from beeq_cli.running import FAILURE, run


@click.command(
    short_help="Say why a job is where it is.",
    epilog=examples("beeq explain 17", "beeq explain 17 --queue mail --json"),
)
@click.argument("job_id", metavar="ID")
@queue_option
@option("--json", "as_json", is_flag=True, help="Print an object.")
@common_options()
@click.pass_obj
def explain(common: Common, /, job_id: str, queue_name: str | None, as_json: bool) -> None:
    """Say why the job ID is where it is: who paused it, how many run before it, no worker, due when.

    The id finds its queue by itself. Exits with 1 if Redis has nothing of the job.
    """
    finder = QueueFinder(common, queue_name)
    sys.exit(run(_explain(finder, job_id, queue_name, as_json=as_json)))


async def _explain(finder: QueueFinder, job_id: str, queue_name: str | None, *, as_json: bool) -> int:
    async with finder:
        target = only_one(job_id, await finder.having(job_id, is_gone_too=True))
        if target is not None:
            queue = target.queue
        elif queue_name is not None:
            queue = await finder.queue(queue_name)
        else:
            names = await finder.that_gave_out(job_id)
            if len(names) != 1:
                rest = f": {', '.join(names)} have given out this id" if names else ""
                complain(f"no queue has a job {job_id}{rest}; --queue QUEUE says what became of it")
                return FAILURE
            queue = await finder.queue(names[0])
        explanation = await queue.explain(job_id)
    if as_json:
        reasons = [{"kind": reason.kind, "text": reason.text} for reason in explanation.reasons]
        facts = {"id": job_id, "queue": explanation.queue_name, "state": explanation.state}
        print_json({**facts, "reasons": reasons})
    else:
        for line in _lines(explanation):
            print_line(line)
    return FAILURE if explanation.state == "missing" else 0


def _lines(explanation: Explanation) -> list[str]:
    head = f"job {explanation.job_id} of {explanation.queue_name}: {explanation.state}"
    return [head, *(f"  {sentence}" for sentence in explanation.sentences)]
