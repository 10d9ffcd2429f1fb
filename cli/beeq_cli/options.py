"""The options that commands share, each with its ``BEEQ_*`` twin, and the way their texts are read."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click
from click.core import ParameterSource

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


def parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return the callback of an option whose text ``parse`` reads; its ``ValueError`` is a usage error."""

    def convert(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(map(parse, value))
            return None if value is None else parse(value)
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return convert


def option(*names: str, **attributes: Any) -> Callable[[Decorated], Decorated]:
    """Return ``click.option`` with the twin in the environment: ``--max-age`` is ``BEEQ_MAX_AGE`` there."""
    longest = max((name for name in names if name.startswith("-")), key=len)
    variable = "BEEQ_" + longest.lstrip("-").replace("-", "_").upper()
    return click.option(*names, envvar=variable, **attributes)


def examples(*commands: str) -> str:
    """Return the end of a command's help: how it is called. A test runs each line."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


@dataclass(slots=True)
class Common:
    """The options of every command: where Redis is, and how much to say.

    ``redis_option`` and ``prefix_option`` are those of the command line, which win over what an app's queue
    was made with; the environment does not.
    """

    redis_option: str | None = field(default=None, repr=False)  # it may hold a password
    prefix: str = "bq"
    prefix_option: str | None = None
    is_verbose: bool = False
    is_quiet: bool = False

    def redis_url(self) -> str:
        """Return Redis's URL, from the option or the environment; one that is malformed is a usage error."""
        from beeq.environment import redis_url  # noqa: PLC0415 - loads the engine

        try:
            return redis_url(self.redis_option, os.environ)
        except ValueError as error:
            raise click.UsageError(str(error)) from None


def mongo_option() -> Callable[[Decorated], Decorated]:
    """Return ``--mongo-url``. Not by ``option``: to click, an empty variable would be an absent one."""
    return click.option(
        "--mongo-url", metavar="URL", help="Where the status mirror is [BEEQ_MONGO_URL, MONGODB_URI]."
    )


def read_mongo_url(text: str | None) -> str | None:
    """Return the mirror's URL, from the option or the environment; None: no mirror was asked for."""
    from beeq import environment  # noqa: PLC0415 - loads the engine

    try:
        return environment.mongo_url(text, os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def project_id_option() -> Callable[[Decorated], Decorated]:
    """Return ``--mongo-project-id``, likewise."""
    return click.option(
        "--mongo-project-id",
        metavar="TYPE",
        help="Type of projectId in the mirror: auto, text or objectid [BEEQ_MONGO_PROJECT_ID, auto].",
    )


def read_project_id(text: str | None) -> str:
    """Return the type of ``projectId`` in the mirror, from the option or the environment."""
    from beeq import environment  # noqa: PLC0415 - loads the engine

    try:
        return environment.mongo_project_id(text, os.environ)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def wait_replicas_option() -> Callable[[Decorated], Decorated]:
    """Return ``--wait-replicas``."""
    return option(
        "--wait-replicas",
        metavar="N",
        type=click.IntRange(min=0),
        default=0,
        help="Replicas of Redis that must confirm a change before it counts as done [0].",
    )


def log_format_option() -> Callable[[Decorated], Decorated]:
    """Return ``--log-format``."""
    return option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        help="How the log is written: text, or json, one object a line [text].",
    )


def common_options(*, has_redis: bool = True) -> Callable[[Decorated], Decorated]:
    """Add ``-u``, ``-p``, ``-v`` and ``-q``; they may come before the command's name as well."""
    kept: dict[str, Any] = {"expose_value": False, "callback": _keep}
    decorators = [
        option("-q", "--quiet", is_flag=True, help="Say nothing but errors.", **kept),
        option("-v", "--verbose", is_flag=True, help="Say more; show tracebacks.", **kept),
    ]
    if has_redis:
        where = "Where Redis is [BEEQ_REDIS_URL, REDIS_URL, REDIS_HOST …, else a server in ./.beeq]."
        decorators += [
            option("-p", "--prefix", metavar="PREFIX", help="First part of every key [bq].", **kept),
            # Not by ``option``: to click, an empty variable would be an absent one; here it is an error.
            click.option("-u", "--redis-url", metavar="URL", help=where, **kept),
        ]

    def decorate(command: Decorated) -> Decorated:
        for decorator in decorators:
            command = decorator(command)
        return command

    return decorate


_ATTRIBUTES = {"redis_url": "redis_option", "prefix": "prefix", "verbose": "is_verbose", "quiet": "is_quiet"}


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Put an option's value into the context's ``Common``, with those given before the command's name."""
    common = ctx.ensure_object(Common)
    if param.name is not None and value not in (None, False):
        setattr(common, _ATTRIBUTES[param.name], value)
        if param.name == "prefix" and is_on_command_line(ctx, "prefix"):
            common.prefix_option = value


def is_on_command_line(ctx: click.Context, name: str) -> bool:
    """Return whether the option was given on the command line: not by the environment, and no default."""
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
