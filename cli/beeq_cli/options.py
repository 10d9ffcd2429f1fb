"""The options that commands share, each with its ``BEEQ_*`` twin, and their faces as parameter types."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import click

from beeq_cli.conditions import parse_condition
from beeq_cli.quantities import parse_backoff, parse_duration, parse_moment

T = TypeVar("T")
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Parsed(click.ParamType, Generic[T]):
    """A parameter whose text a function parses; its ``ValueError`` is a usage error."""

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse what was typed; a default is taken as it is."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def option(*names: str, **attributes: Any) -> Callable[[Decorated], Decorated]:
    """Return ``click.option`` with the twin in the environment: ``--max-age`` is ``BEEQ_MAX_AGE`` there."""
    longest = max(names, key=len).partition("/")[0]
    variable = "BEEQ_" + longest.lstrip("-").replace("-", "_").upper()
    return click.option(*names, envvar=variable, **attributes)


@dataclass(slots=True)
class Common:
    """What every command is told: where Redis is, and how much to say."""

    redis_option: str | None = None
    prefix: str = "bq"
    is_verbose: bool = False
    is_quiet: bool = False

    def redis_url(self) -> str:
        """Return the URL that options and environment ask for.

        Raises:
            click.UsageError: it is empty or malformed.
        """
        from beeq_cli.configuration import redis_url  # noqa: PLC0415 - loads the engine

        try:
            return redis_url(self.redis_option, os.environ)
        except ValueError as error:
            raise click.UsageError(str(error)) from None


def common_options(command: Decorated) -> Decorated:
    """Add ``-u``, ``-p``, ``-v`` and ``-q``; they may stand before the command's name as well."""
    for decorate in (
        option("-q", "--quiet", is_flag=True, expose_value=False, callback=_note, help="Say nothing but errors."),
        option(
            "-v", "--verbose", is_flag=True, expose_value=False, callback=_note, help="Say more; show tracebacks."
        ),
        option(
            "-p", "--prefix", metavar="PREFIX", expose_value=False, callback=_note, help="First part of every key [bq]."
        ),
        # Not through click's own look into the environment: an empty variable is an error, not absent.
        click.option(
            "-u",
            "--redis-url",
            metavar="URL",
            expose_value=False,
            callback=_note,
            help="Where Redis is [BEEQ_REDIS_URL, REDIS_URL, REDIS_HOST …, else a server in ./.beeq].",
        ),
    ):
        command = decorate(command)
    return command


_ATTRIBUTES = {"redis_url": "redis_option", "prefix": "prefix", "verbose": "is_verbose", "quiet": "is_quiet"}


def _note(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Keep an option that was given where the command finds it, beside those given before its name."""
    common = ctx.ensure_object(Common)
    if param.name is not None and value not in (None, False):
        setattr(common, _ATTRIBUTES[param.name], value)


DURATION = Parsed("duration", parse_duration)
MOMENT = Parsed("moment", parse_moment)
BACKOFF = Parsed("backoff", parse_backoff)
CONDITION = Parsed("condition", parse_condition)
