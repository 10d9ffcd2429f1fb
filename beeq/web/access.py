"""Access control of the HTTP API: one guard, which every request passes first. Pure.

A page in a browser can send requests to any address that the browser reaches, and so to this machine. Three
things keep it out. ``Host`` must be ours: a page whose own name was made to resolve to this machine (DNS
rebinding) sends that name. ``Origin``, where there is one, must be the same, and ``Sec-Fetch-Site``, which no
page can change, must not speak of another site. And with a token, the request must carry it.

Without a token, only programs on this machine are answered. Under a server of its own (uvicorn, gunicorn)
the application does not know on which addresses it is reached: both ends of the connection must be
loopback's, and no header may show that a proxy forwards the request for another client.
"""

import hmac
import re
from typing import Any, Literal

from starlette.datastructures import Headers
from starlette.types import Scope

from beeq.web.policy import HostAndPort, Policy, address_of
from beeq.web.responses import Refusal

_DEFAULT_PORTS = {"http": 80, "https": 443}
#: Headers in which proxies name their client; a client without a proxy does not send them.
_OF_A_PROXY = re.compile(
    r"forwarded.*|via|cdn-loop|x-host"
    r"|x-(forward|real|remote|original|originating|proxy|cluster|envoy|azure|arr)-?.*"
    r"|(.*-)?(client|connecting|user|source)-?ip(v6)?|(cf|fly|tailscale)-.*",
    re.ASCII,
)
#: What a visitor may do.
Role = Literal["act", "look"]
#: Methods that change nothing.
LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
#: Starlette's TestClient gives itself this address.
_TEST_CLIENT = "testclient"


def check_sender(scope: Scope, policy: Policy, *, may_be_linked: bool = False) -> None:
    """Raise Refusal unless the request comes from where ``policy`` allows, and is for this application.

    With ``may_be_linked``, a link on a page of another site may lead here: a whole page, in no frame.
    """
    headers = Headers(scope=scope)
    host = _host(headers)
    if not _is_ours(host, scope, policy):
        raise Refusal(403, "This host is not allowed: --allow-host or BEEQ_ALLOW_HOST names those that are")
    is_linked = may_be_linked and is_link_of_others(scope)
    if not is_linked and not _is_from_a_page_of_ours(headers, host, scope, policy):
        raise _foreign()
    if not policy.needs_token and not _is_local(scope, headers):
        raise Refusal(
            403, "Without BEEQ_WEB_TOKEN only programs on this machine are answered, and not through a proxy"
        )


def check_page(scope: Scope, policy: Policy) -> None:
    """Raise Refusal if a page of another origin sends the request; it may lead here by a link.

    For an application within a host application, which checks its own hosts and users.
    """
    headers = Headers(scope=scope)
    if not is_link_of_others(scope) and not _is_from_a_page_of_ours(headers, _host(headers), scope, policy):
        raise _foreign()


def is_link_of_others(scope: Scope) -> bool:
    """Return whether a browser opens this address as a whole page from a link on another site."""
    headers = Headers(scope=scope)
    return (
        scope["method"] in ("GET", "HEAD")
        and headers.getlist("sec-fetch-site") in (["cross-site"], ["same-site"])
        and headers.getlist("sec-fetch-mode") == ["navigate"]
        and headers.getlist("sec-fetch-dest") == ["document"]
        and "origin" not in headers
    )


def _foreign() -> Refusal:
    return Refusal(403, "Requests from pages of other origins are not allowed")


def check_token(scope: Scope, policy: Policy) -> None:
    """Raise Refusal unless the request carries the token for what it asks, if there is one."""
    role = role_by_bearer(scope, policy)
    if role is None:
        error = "Authorization must be Bearer and the token that BEEQ_WEB_TOKEN holds"
        raise Refusal(401, error, headers={"www-authenticate": "Bearer"})
    if role == "look" and scope["method"] not in LOOKING:
        raise Refusal(403, "Who only looks may not do this")


def role_by_bearer(scope: Scope, policy: Policy) -> Role | None:
    """Return the sender's role by the token in ``Authorization``; None: no rights."""
    if not policy.needs_token:
        return "look" if policy.is_read_only else "act"
    given = Headers(scope=scope).getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return role_of(token.strip(" ").encode("latin-1"), policy) if scheme.lower() == "bearer" else None


def role_of(token: bytes, policy: Policy) -> Role | None:
    """Return the role of a token's holder, or None. Takes the same time for any token of its length."""
    acts, looks = (
        known is not None and hmac.compare_digest(token, known.encode())
        for known in (policy.token, policy.read_token)
    )
    if acts and not policy.is_read_only:
        return "act"
    return "look" if acts or looks else None


def _host(headers: Headers) -> HostAndPort:
    given = headers.getlist("host")
    try:
        (text,) = given
        return HostAndPort.of(text)
    except ValueError:
        raise Refusal(400, "The request must name one valid Host") from None


def _is_ours(host: HostAndPort, scope: Scope, policy: Policy) -> bool:
    if host in policy.hosts or HostAndPort(host.host) in policy.hosts:
        return True
    address = host.address
    if address is not None:
        # An address needs no resolving, so it cannot be rebound. Behind NAT our own addresses are unknown;
        # with a token that does not matter.
        return address.is_loopback or policy.needs_token
    return host.host == "localhost" or host.host == _in_process_name(scope)


def _in_process_name(scope: Scope) -> str | None:
    """Return the name by which an in-process client calls the application; None if there is a socket.

    Transports of tests (``httpx.ASGITransport``, Starlette's TestClient) give the URL's host as the server's
    address, where a server has that of its socket. No page gets there. Names with a dot do not count, so that
    a test of an attacker's name is refused as it would be on a socket.
    """
    name = _end(scope, "server")
    if name is None or address_of(name) is not None or re.fullmatch(r"[A-Za-z0-9-]+", name, re.ASCII) is None:
        return None
    return name.lower()


def _is_from_a_page_of_ours(headers: Headers, host: HostAndPort, scope: Scope, policy: Policy) -> bool:
    """Return whether no page sent the request, or one of this application's own origin."""
    sites = headers.getlist("sec-fetch-site")
    if sites and sites not in (["same-origin"], ["none"]):
        return False
    origins = headers.getlist("origin")
    if not origins:
        return True
    scheme, separator, authority = origins[0].partition("://")
    if len(origins) > 1 or not separator or scheme not in _DEFAULT_PORTS:
        return False
    if scheme == "http" and scope.get("scheme", "http") != "http":
        return False  # the other way round a proxy may have removed TLS
    try:
        origin = HostAndPort.of(authority)
    except ValueError:
        return False
    origin = _with_port(origin, scheme)
    # A proxy may send a Host of its own: an allowed host's origin is ours as well.
    ours = {_with_port(one, scheme) for one in (host, *policy.hosts)}
    return origin in ours


def _with_port(host: HostAndPort, scheme: str) -> HostAndPort:
    return HostAndPort(host.host, _DEFAULT_PORTS[scheme] if host.port is None else host.port)


def _is_local(scope: Scope, headers: Headers) -> bool:
    client, server = _end(scope, "client"), _end(scope, "server")
    if client is None or any(_OF_A_PROXY.fullmatch(name) for name in headers):
        return False
    address = address_of(client)
    if address is None:
        return client == _TEST_CLIENT and _in_process_name(scope) is not None
    ours = None if server is None else address_of(server)
    return address.is_loopback and (ours is None or ours.is_loopback)


def _end(scope: Scope, name: str) -> str | None:
    """Return the host of one end of the connection."""
    end: Any = scope.get(name)
    return str(end[0]) if end else None
