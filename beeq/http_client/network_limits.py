"""The configuration's allowed ports and denied networks, in addition to the guard's own. No IO."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from beeq.http_client.addresses import inner_address

PORTS_SETTING = "BEEQ_WEBHOOK_PORTS"
DENY_NETS_SETTING = "BEEQ_WEBHOOK_DENY_NETS"
#: HTTP's own ports, and the unprivileged ones. Below 1024 there are mail, SSH, directories and file shares,
#: to which a POST is useless and may be harmful.
USUAL_PORTS = "80,443,1024-65535"
_ANY = "any"
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class NetworkLimits:
    """Limits of ports and networks; without arguments all ports are allowed, and no network is denied.

    Attributes:
        ports: the ports that may be called at hosts that are not allowed by name; None: all of them.
        denied: networks that are not called even if they are public, or a host in them is allowed by name.
    """

    ports: tuple[range, ...] | None = None
    denied: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def parse(cls, ports: str = USUAL_PORTS, deny_nets: str = "") -> NetworkLimits:
        """Read both settings: ports and ranges of them, or ``any``; networks (CIDR) and addresses.

        Raises ValueError if an entry is invalid; the message names the setting and the entry.
        """
        return cls(_ports(ports), tuple(_network(word) for word in _words(deny_nets)))

    def allows_port(self, port: int) -> bool:
        """Return whether the port may be called."""
        return self.ports is None or any(port in some for some in self.ports)

    def denies(self, address: str) -> bool:
        """Return whether an address, or the IPv4 address that it holds, is in one of the networks."""
        given = ip_address(address)
        return any(form in network for form in (given, inner_address(given)) for network in self.denied)


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _ports(text: str) -> tuple[range, ...] | None:
    if text.strip() == _ANY:
        return None
    words = _words(text)
    if not words:
        raise ValueError(f"{PORTS_SETTING} must name ports, or be {_ANY}: it is empty")
    return tuple(_port_range(word) for word in words)


def _port_range(word: str) -> range:
    match = _RANGE.fullmatch(word)
    first = int(match[1]) if match else 0
    last = int(match[2]) if match and match[2] else first
    if not 0 < first <= last <= _MAX_PORT:
        raise ValueError(
            f"{PORTS_SETTING} must be {_ANY}, or a comma list of ports and ranges such as"
            f" {USUAL_PORTS}: {word!r} is not valid"
        )
    return range(first, last + 1)


def _network(word: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(word)
    except ValueError as error:
        why = "bits behind its prefix are set" if "host bits" in str(error) else "it is not valid"
        raise ValueError(
            f"{DENY_NETS_SETTING} must be a comma list of networks such as 203.0.113.0/24 or 2001:db8::/32:"
            f" {word!r}: {why}"
        ) from None
