"""Parses the URL of a webhook, and names its endpoint. No IO.

``target_of`` writes every host in one canonical form; the connection, the TLS check, the Host header, keys
and circuits all use it. So a spelling of a host that always fails cannot make its failures count as the
host's.
"""

from typing import NewType

import httpx

from beeq.http_client.addresses import ALLOW_HOSTS_SETTING, canonical
from beeq.http_client.guard import WebhookRefused

_MAX_PORT = 65535
#: No name in the DNS is longer.
_MAX_HOST_CHARACTERS = 253
_DEFAULT_PORTS = {"http": 80, "https": 443}

#: A URL in canonical form; ``target_of`` makes it.
Target = NewType("Target", httpx.URL)


def target_of(url: str) -> Target:
    """Parse the URL of a webhook, and write scheme, host and port in canonical form.

    Raises WebhookRefused with a message without any part of the URL.
    """
    try:
        target = httpx.URL(url)
        host = target.host  # raises for a name that is not valid IDNA, such as "xn--"
    except (httpx.InvalidURL, ValueError):
        raise WebhookRefused(
            "the webhook URL cannot be read, or spells an address in a way that is always refused"
            f" ({ALLOW_HOSTS_SETTING} is for plain hosts)"
        ) from None
    if target.scheme not in {"http", "https"}:
        raise WebhookRefused("the webhook URL must begin with http:// or https://")
    if target.userinfo:
        raise WebhookRefused(
            "the webhook URL holds a user name or password, which is always refused"
            f" ({ALLOW_HOSTS_SETTING} is for plain hosts)"
        )
    if not host or not 0 < (1 if target.port is None else target.port) <= _MAX_PORT:
        raise WebhookRefused("the webhook URL has no usable host and port")
    name = canonical(target.raw_host.decode("ascii"))
    if len(name) > _MAX_HOST_CHARACTERS:
        raise WebhookRefused(f"the webhook URL's host has more than {_MAX_HOST_CHARACTERS} characters")
    if not all(name.split(".")):  # no resolver takes it, and its canonical form is not one dot less
        raise WebhookRefused("the webhook URL has no usable host: a part between its dots is empty")
    # httpx leaves out a default port, but not behind a scheme in capitals.
    port = None if target.port == _DEFAULT_PORTS[target.scheme] else target.port
    try:
        return Target(target.copy_with(host=name, port=port))
    except httpx.InvalidURL:  # percent-encoded it is longer than it was
        raise WebhookRefused("the webhook URL is too long") from None


def endpoint_of(target: Target) -> str:
    """Return scheme, host, port and path of a target, as a message to it has them.

    The path is not normalised, since servers differ in that: two paths are never one endpoint.
    """
    return origin_of(target) + target.raw_path.partition(b"?")[0].decode("ascii")


def origin_of(target: Target) -> str:
    """Return scheme, host and port of a target: what is connected to."""
    return f"{target.scheme}://{target.netloc.decode('ascii')}"
