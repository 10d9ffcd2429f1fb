"""The hosts that a webhook may call: public addresses, and the hosts that the configuration allows. No IO."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpx

ALLOW_HOSTS_SETTING = "BEEQ_WEBHOOK_ALLOW_HOSTS"

#: Refused in addition to what ``ipaddress`` calls not global, whose tables differ between Python versions.
_REFUSED_V4 = (
    IPv4Network("100.64.0.0/10"),  # carrier-grade NAT; one cloud's metadata service
    IPv4Network("168.63.129.16/32"),  # a cloud's platform service, on a public number
    IPv4Network("192.0.0.0/24"),  # protocol assignments; one cloud's metadata service
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("198.18.0.0/15"),  # benchmarking
)
#: The only part of IPv6 that is assigned to networks …
_UNICAST_V6 = IPv6Network("2000::/3")
#: … and the parts of it that are not, or that contain an IPv4 address.
_REFUSED_V6 = (
    IPv6Network("2001::/23"),  # Teredo, benchmarking, ORCHID
    IPv6Network("2001:db8::/32"),  # documentation
    IPv6Network("2002::/16"),  # 6to4
    IPv6Network("3fff::/20"),  # documentation
)
#: IPv6 forms of IPv4 addresses: mapped, and NAT64 (the form of every IPv4-only host behind DNS64).
_WRAPPED_V4 = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))

_HOST_NAME = re.compile(r"[a-z0-9._-]+", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_ALLOWED_ENTRY = re.compile(r"(\[[^\[\]/?#@]+\]|[^:\[\]/?#@\\]+)(?::([0-9]{1,5}))?", re.ASCII)
_MAX_PORT = 65535


def is_public(address: str) -> bool:
    """Return whether a resolved address is on the public internet; a scoped one (``fe80::1%2``) never is."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv4Address):
        return _is_public_v4(parsed)
    if parsed.scope_id is not None:
        return False
    inner = inner_address(parsed)
    if isinstance(inner, IPv4Address):
        return _is_public_v4(inner)
    return (
        parsed in _UNICAST_V6 and parsed.is_global and not any(parsed in network for network in _REFUSED_V6)
    )


def inner_address(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address within an IPv6 one, or else the address itself."""
    if isinstance(address, IPv6Address) and any(address in network for network in _WRAPPED_V4):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def is_address(host: str) -> bool:
    """Return whether a URL's host is an address in the usual form, not a name."""
    return _as_address(host) is not None


def _is_public_v4(address: IPv4Address) -> bool:
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in network for network in _REFUSED_V4)
    )


def may_resolve(host: str) -> bool:
    """Return whether ``host`` may be given to the resolver at all.

    Refused: this machine's own names, scoped addresses, and numbers in unusual forms (``2130706433``,
    ``0177.0.0.1``, ``0x7f.1``, ``127.1``), which some resolvers take for addresses. ``host`` is from the URL,
    in lower case, without brackets.
    """
    if _as_address(host) is not None:
        return "%" not in host
    name = host.removesuffix(".")
    labels = name.split(".")
    return (
        _HOST_NAME.fullmatch(name) is not None
        and labels[-1] != "localhost"
        and _NUMBER.fullmatch(labels[-1]) is None
    )


@dataclass(frozen=True, slots=True)
class AllowedHosts:
    """The hosts that may be called even if their addresses are not public.

    A name matches the URL's host as written, never what a host resolves to; an address matches itself. An
    entry without a port allows all ports. Messages name the ``setting`` that holds the list.
    """

    entries: frozenset[tuple[str, int | None]]
    setting: str = ALLOW_HOSTS_SETTING

    @classmethod
    def parse(cls, text: str, setting: str = ALLOW_HOSTS_SETTING) -> AllowedHosts:
        """Return the hosts in a comma list of ``host``, ``host:port`` and ``[v6]:port``.

        Raises ValueError if an entry is invalid; the message names the setting and the entry.
        """
        words = (word.strip() for word in text.split(","))
        return cls(frozenset(_entry(word, setting) for word in words if word), setting)

    def allows(self, host: str, port: int) -> bool:
        """Return whether the URL's ``host`` and ``port`` are in the list."""
        name = canonical(host)
        return (name, None) in self.entries or (name, port) in self.entries


def _entry(word: str, setting: str) -> tuple[str, int | None]:
    if _as_address(word) is not None:  # an IPv6 address without brackets, hence without a port
        return canonical(word), None
    match = _ALLOWED_ENTRY.fullmatch(word)
    host = _host_of(match[1]) if match else None
    port = int(match[2]) if match and match[2] else None
    if host is None or (port is not None and not 0 < port <= _MAX_PORT):
        raise ValueError(
            f"{setting} must be a comma list of host, host:port or [v6]:port: {word!r} is not valid"
        )
    return canonical(host), port


def _host_of(written: str) -> str | None:
    """Return the host as a URL would give it (lower case, IDNA); None if it is not a valid host."""
    try:
        host = httpx.URL(f"http://{written}/").raw_host.decode("ascii")
    except httpx.InvalidURL:
        return None
    return host if _as_address(host) is not None or _HOST_NAME.fullmatch(host) else None


def canonical(host: str) -> str:
    """Return a URL's host in one form: in lower case, without the final dot; an address in its short form."""
    name = host.lower().removesuffix(".")
    address = _as_address(name)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        # Newer versions of Python end it in the IPv4 address; keys are derived from this form.
        high, low = divmod(int(address.ipv4_mapped), 1 << 16)
        return f"::ffff:{high:x}:{low:x}"
    return name if address is None else str(address)


def _as_address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
