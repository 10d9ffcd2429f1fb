"""``beeq webhook-secret``: prints the key by which a receiver verifies its webhooks. It needs no Redis."""

import os

import click

from beeq.http_client.guard import WebhookRefused
from beeq.webhooks.keys import (
    MAPPED_SETTING,
    SCHEMES_SETTING,
    SECRET_SETTING,
    USE_SETTING,
    EndpointKeys,
)
from beeq.webhooks.urls import target_of
from beeq_cli.console import print_line, say
from beeq_cli.options import Common, common_options, examples, option


@click.command(
    "webhook-secret",
    short_help="Print the key that a webhook's receiver verifies with.",
    epilog=examples(
        "BEEQ_WEBHOOK_SECRET=whsec_$(head -c 24 /dev/urandom | base64)"
        " beeq webhook-secret https://hooks.example.com/films"
    ),
)
@click.argument("url", metavar="URL")
@option("--public", "is_public", is_flag=True, help="The public key (whpk_…), of ed25519 signatures.")
@common_options(has_redis=False)
@click.pass_obj
def webhook_secret(common: Common, url: str, is_public: bool) -> None:
    """Print the key of the endpoint URL: that of its scheme, host, port and path.

    The settings are the worker's: BEEQ_WEBHOOK_SECRET, BEEQ_WEBHOOK_KEYS, BEEQ_WEBHOOK_SIGNATURES,
    BEEQ_WEBHOOK_ENDPOINT_KEYS. While a secret is replaced, the key is the new one's.
    """
    try:
        keys = EndpointKeys.parse(
            os.environ.get(SECRET_SETTING),
            use=os.environ.get(USE_SETTING),
            schemes=os.environ.get(SCHEMES_SETTING),
            mapped=os.environ.get(MAPPED_SETTING) or None,
        )
        target = target_of(url)
        key = keys.public_of(target) if is_public else next(iter(keys.of(target)), None)
    except (ValueError, WebhookRefused) as error:
        raise click.UsageError(str(error)) from None
    except ImportError as error:  # it names the extra
        raise click.ClickException(str(error)) from None
    if key is None:
        kind = "public key" if is_public else "key"
        raise click.UsageError(
            f"this endpoint has no {kind}: {SECRET_SETTING} and {MAPPED_SETTING} give none"
        )
    if keys.is_shared(target) and not common.is_quiet:
        say(f"{USE_SETTING} is shared: all receivers have this key, and each of them can forge with it")
    print_line(key.of_receiver())
