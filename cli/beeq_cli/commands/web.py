"""``beeq web``: serves the page and the HTTP routes until a signal comes."""

import logging
import os
import socket
from functools import partial
from typing import Any

import click

from beeq.logs.records import logger
from beeq.settings import parse_duration
from beeq_cli import logs
from beeq_cli.options import (
    Common,
    common_options,
    examples,
    log_format_option,
    mongo_option,
    option,
    parsed,
    project_id_option,
    read_mongo_url,
    read_project_id,
    wait_replicas_option,
)
from beeq_cli.running import run


def _seconds(text: str) -> float:
    duration_ms = parse_duration(text)
    if not 100 <= duration_ms <= 3_600_000:  # noqa: PLR2004 - as the message says
        raise ValueError("it must be from 100ms to 1h")
    return duration_ms / 1000


@click.command(
    short_help="Serve the page and the HTTP routes.",
    epilog=examples("beeq web --port 8000 --head-timeout 10s"),
)
@option(
    "--host",
    metavar="HOST",
    default="127.0.0.1",
    help="Where to listen [127.0.0.1]; beyond this machine only with BEEQ_WEB_TOKEN or _READ_TOKEN.",
)
@option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65_535),
    default=8000,
    help="On which port; 0 picks a free one [8000].",
)
@option(
    "--allow-host",
    metavar="HOST[:PORT]",
    multiple=True,
    help="A name by which requests may call this server, beside localhost; again or as a comma list.",
)
@option(
    "--max-waiting",
    metavar="N",
    type=click.IntRange(1),
    help="Jobs that may wait in a queue; requests for more get status 429 [10000].",
)
@option(
    "--max-connections",
    metavar="N",
    type=click.IntRange(1),
    help="Connections at once, fewer where the system allows fewer open files [500].",
)
@option(
    "--head-timeout",
    metavar="D",
    callback=parsed(_seconds),
    help="The time in which the head of a request must come [10s].",
)
@option("--read-only", is_flag=True, help="Nobody changes anything.")
@option("--hide-data", is_flag=True, help="Show of jobs' values and errors their shape only.")
@mongo_option()
@project_id_option()
@wait_replicas_option()
@log_format_option()
@common_options()
@click.pass_obj
def web(  # noqa: PLR0917 - one parameter an option
    common: Common,
    host: str,
    port: int,
    allow_host: tuple[str, ...],
    max_waiting: int | None,
    max_connections: int | None,
    head_timeout: float | None,
    read_only: bool,
    hide_data: bool,
    mongo_url: str | None,
    mongo_project_id: str | None,
    wait_replicas: int,
    log_format: str,
) -> None:
    """Serve the page at /, and the HTTP routes, which /openapi.json describes.

    The page shows and steers every queue that Redis holds. With BEEQ_WEB_TOKEN set, all but /health need it:
    Authorization: Bearer TOKEN, or the page's login. With that of BEEQ_WEB_READ_TOKEN one may look, and
    change nothing. Without any, only programs on this machine are answered. SIGTERM and SIGINT let requests
    under way end. With -v each request is logged.
    """
    if not host:
        raise click.UsageError("HOST is empty")
    url, mirror_url = common.redis_url(), read_mongo_url(mongo_url)
    id_type = read_project_id(mongo_project_id)
    try:
        from beeq.web import create_app, dashboard, policy, server, service_for  # noqa: PLC0415 - an extra

        service = service_for(
            url, common.prefix, mirror_url, mongo_project_id=id_type, wait_replicas=wait_replicas
        )
        rules = policy.Policy(
            token=policy.web_token(os.environ),
            read_token=policy.read_token(os.environ),
            allowed_hosts=policy.host_list([*allow_host, *policy.name_in(host)]),
            is_read_only=read_only,
            hides_data=hide_data,
            **_given(max_waiting=max_waiting),
        )
        page = dashboard(
            redis=url, prefixes=[common.prefix], policy=rules, mongo=mirror_url, mongo_id_type=id_type
        )
    except ImportError as error:  # it names the extra
        raise click.ClickException(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    logs.set_up(common, log_format)
    if common.is_verbose:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    try:
        where = server.address_to_listen_on(host, port)
        if not rules.needs_token and not where.is_loopback:
            raise click.UsageError(f"{host} is not loopback: set BEEQ_WEB_TOKEN, or others could start jobs")
        listener = server.listen(where)
    except (OSError, UnicodeError) as error:
        raise click.ClickException(f"cannot listen on {host}, port {port}: {_reason(error)}") from None

    app = create_app(lambda: service, lambda: rules, lambda: page)
    serving = server.serve(
        app,
        listener,
        on_serving=partial(logger.info, "Serving on %s", server.url_of(listener)),
        has_access_log=common.is_verbose,
        **_given(max_connections=max_connections, head_timeout_s=head_timeout),
    )
    run(serving)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "it is not a valid host name"
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or type(error).__name__
    return os.strerror(error.errno)  # create_server's own text has the address again
