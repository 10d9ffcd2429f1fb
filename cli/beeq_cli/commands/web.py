"""``beeq web``: serves the HTTP routes until a signal comes."""

import logging
import os
import socket
from functools import partial

import click

from beeq_cli import logs
from beeq_cli.options import Common, common_options, mongo_option, option, read_mongo_url
from beeq_cli.running import run


@click.command(short_help="Serve the HTTP routes.")
@option(
    "--host", metavar="HOST", default="127.0.0.1", help="Where to listen [127.0.0.1]: there is no log-in."
)
@option(
    "--port",
    metavar="PORT",
    type=click.IntRange(0, 65_535),
    default=8000,
    help="On which port; 0 picks a free one [8000].",
)
@mongo_option()
@common_options()
@click.pass_obj
def web(common: Common, host: str, port: int, mongo_url: str | None) -> None:
    """Serve the HTTP routes, which /openapi.json describes.

    SIGTERM and SIGINT let requests under way end. With -v each request is logged.
    """
    if not host:
        raise click.UsageError("HOST is empty")
    url, mirror_url = common.redis_url(), read_mongo_url(mongo_url)
    try:
        from beeq.web import create_app, server, service_for  # noqa: PLC0415 - an extra

        service = service_for(url, common.prefix, mirror_url)
    except ImportError as error:  # it names the extra
        raise click.ClickException(str(error)) from error
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    logs.configure("text", is_verbose=common.is_verbose, is_quiet=common.is_quiet)
    if common.is_verbose:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    try:
        listener = server.listen(host, port)
    except (OSError, UnicodeError) as error:
        raise click.ClickException(f"cannot listen on {host}, port {port}: {_reason(error)}") from None

    say = partial(logs.logger.info, "Serving on %s", server.url_of(listener))
    app = create_app(lambda: service)
    run(server.serve(app, listener, on_serving=say, has_access_log=common.is_verbose))


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return "it is not a valid host name"
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or type(error).__name__
    return os.strerror(error.errno)  # create_server's own text has the address again
