"""The filter options of commands, and their parsing."""

from collections.abc import Callable
from typing import Any

import click

from beeq import OneOf
from beeq.operations.job_filter import STATES, Filters
from beeq.protocol.codec import loads
from beeq.settings import parse_duration
from beeq_cli.options import Decorated, parsed


def parse_where(text: str) -> tuple[str, Any]:
    """Return path and value: ``data.user=7`` means text or number, ``data.user:=7`` the number only.

    Raises ValueError.
    """
    name, separator, value = text.partition("=")
    is_json = name.endswith(":")
    path = name.removesuffix(":")
    if not separator or not path:
        raise ValueError(f"invalid condition {text!r}; write data.user=7, or data.user:=7 for JSON")
    try:
        exact = loads(value.encode())
    except (ValueError, UnicodeEncodeError) as error:
        if is_json:
            raise ValueError(f"{path}: not JSON: {error}") from None
        return path, value
    return (path, exact) if is_json else (path, OneOf((value, exact)))


def filter_options(*, states: tuple[str, ...] = STATES) -> Callable[[Decorated], Decorated]:
    """Add the filters; each is given to the command, ``None`` or ``()`` where it was left out.

    They have no twins in the environment: the choice of jobs must be on the command line.
    """
    decorators = [
        click.option("--limit", metavar="N", type=click.IntRange(min=1), help="At most so many jobs."),
        click.option(
            "--older-than",
            metavar="D",
            callback=parsed(parse_duration),
            help="Failed, or else created, longer ago than D (5m, 1h, 7d).",
        ),
        click.option(
            "--since",
            metavar="D",
            callback=parsed(parse_duration),
            help="Failed, or else created, at most D ago.",
        ),
        click.option(
            "--where",
            metavar="PATH=VALUE",
            multiple=True,
            callback=parsed(parse_where),
            help="A value of the record: data.user=7, options.retries:=0; all must hold.",
        ),
        click.option("--error", metavar="TEXT", help="Text in the newest error or its trace."),
        click.option(
            "--state",
            "states",
            multiple=True,
            type=click.Choice(states),
            help="Where the jobs are; may be given several times.",
        ),
    ]

    def decorate(command: Decorated) -> Decorated:
        for decorator in decorators:
            command = decorator(command)
        return command

    return decorate


def filters_of(options: dict[str, Any]) -> Filters:
    """Take the filters that were given out of a command's options."""
    states, error, where = options.pop("states"), options.pop("error"), options.pop("where")
    filters: Filters = {}
    if states:
        filters["state"] = states
    if error:
        filters["error"] = error
    if where:
        filters["where"] = dict(where)
    for name in ("since", "older_than", "limit"):
        value = options.pop(name)
        if value is not None:
            filters[name] = value
    return filters
