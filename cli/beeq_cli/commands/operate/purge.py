"""``beeq purge``: removes all jobs of a state, or the older ones."""

import sys

import click

from beeq import Queue
from beeq.operations.job_filter import STATES, Filters, State
from beeq.settings import parse_duration
from beeq_cli.commands.operate.acting import run_many
from beeq_cli.options import Common, common_options, examples, option, parsed

_STATES = tuple(state for state in STATES if state != "active")


@click.command(
    short_help="Remove all jobs of a state, or the older ones.",
    epilog=examples("beeq purge mail --state failed --older-than 7d --yes"),
)
@click.argument("queue_name", metavar="QUEUE")
@click.option("--state", required=True, type=click.Choice(_STATES), help="Which jobs.")
@click.option(
    "--older-than",
    "older_than_ms",
    metavar="D",
    callback=parsed(parse_duration),
    help="Only those that failed, or else were created, longer ago than D (1h, 7d).",
)
@click.option("--dry-run", is_flag=True, help="Show the jobs that are meant, and leave them as they are.")
@click.option("--yes", "is_agreed", is_flag=True, help="Do it without asking.")
@option("--json", "as_json", is_flag=True, help="Print the counts as an object.")
@common_options()
@click.pass_obj
def purge(  # noqa: PLR0917 - one parameter an option
    common: Common,
    /,
    queue_name: str,
    state: State,
    older_than_ms: int | None,
    dry_run: bool,
    is_agreed: bool,
    as_json: bool,
) -> None:
    """Remove the jobs of QUEUE that are in a state: all, or the older ones.

    It shows the number first and asks; without a terminal it needs --yes. To end jobs that run, use cancel.
    """
    if not queue_name:
        raise click.UsageError("QUEUE is empty")
    filters: Filters = {"state": state}
    if older_than_ms is not None:
        filters["older_than"] = older_than_ms
    code = run_many(
        "purge",
        "removed",
        Queue.purge,
        common,
        queue_name,
        filters,
        dry_run=dry_run,
        is_agreed=is_agreed,
        as_json=as_json,
    )
    sys.exit(code)
