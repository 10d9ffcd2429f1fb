"""The URL of a webhook: what is accepted as one, and which endpoint it names. No IO."""

import httpx

from beeq.webhooks.addresses import ALLOW_HOSTS_SETTING, canonical
from beeq.webhooks.guard import WebhookRefused

_MAX_PORT = 65535
#: No name in the DNS is longer.
_MAX_HOST_CHARACTERS = 253
_DEFAULT_PORTS = {"http": 80, "https": 443}


def target_of(url: str) -> httpx.URL:
    """Parse the URL of a webhook; raises WebhookRefused with a message that repeats nothing of the URL."""
    try:
        target = httpx.URL(url)
        host = target.host  # raises for a name that is no IDNA, such as "xn--"
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
    if len(target.raw_host.removesuffix(b".")) > _MAX_HOST_CHARACTERS:
        raise WebhookRefused(f"the webhook URL's host has more than {_MAX_HOST_CHARACTERS} characters")
    return target


def endpoint_of(target: httpx.URL) -> str:
    """Return scheme, host, port and path of a URL, as a message to it has them.

    Nothing is made alike in the path, for servers differ in that: two paths are never one endpoint.
    """
    host = canonical(target.raw_host.decode("ascii"))
    shown = f"[{host}]" if ":" in host else host
    # httpx leaves out a default port, but not behind a scheme in capitals.
    port = "" if target.port in (None, _DEFAULT_PORTS[target.scheme]) else f":{target.port}"
    path = target.raw_path.partition(b"?")[0].decode("ascii")
    return f"{target.scheme}://{shown}{port}{path}"
