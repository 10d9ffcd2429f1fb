"""The checked settings of the HTTP API: access and limits. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Self

#: How many jobs may wait in a queue before the API refuses more.
DEFAULT_MAX_WAITING = 10_000
_MAX_PORT = 2**16 - 1
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::([0-9]{1,5}))?", re.ASCII)
_NAME = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*", re.ASCII)
#: A valid bearer token: visible ASCII characters.
_TOKEN = re.compile(r"[!-~]{1,4096}", re.ASCII)

Address = IPv4Address | IPv6Address


def address_of(text: str) -> Address | None:
    """Return the IP address in ``text``, an IPv4 one within an IPv6 one as IPv4; None if it is not one.

    Only the usual spellings count: ``127.1`` and ``0x7f000001`` are names here.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


@dataclass(frozen=True, slots=True)
class HostAndPort:
    """A host as in ``Host`` and ``Origin``: in lower case, without a dot at its end; its port, if given."""

    host: str
    port: int | None = None

    @classmethod
    def of(cls, text: str) -> Self:
        """Return what ``text`` says; raises a ValueError, which does not repeat it."""
        match = _AUTHORITY.fullmatch(text)
        if match is None:
            raise ValueError("it is not a host, or a host and a port")
        port = None if match[2] is None else int(match[2])
        if port is not None and port > _MAX_PORT:
            raise ValueError("its port is not valid")
        host = match[1].lower()
        address = address_of(host.strip("[]"))
        if address is not None:
            return cls(str(address), port)
        if host.startswith("["):
            raise ValueError("it is not an IPv6 address")
        host = host.removesuffix(".")
        if _NAME.fullmatch(host) is None:
            raise ValueError("it is not a host's name")
        return cls(host, port)

    @property
    def address(self) -> Address | None:
        """The IP address that the host is, if it is one."""
        return address_of(self.host)


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of the HTTP API.

    Args:
        token: requests must carry it as ``Authorization: Bearer``, except those for ``/health``; it allows
            changes. Without this and ``read_token`` only programs on this machine are answered.
        read_token: likewise, but it allows only reading.
        allowed_hosts: what ``Host`` may name, beside the names of loopback: ``host`` or ``host:port``.
        max_waiting: jobs that may wait in a queue before requests for more are answered with 429.
        is_read_only: no changes are allowed.
        hides_data: jobs' data, results and error texts are not shown, only their shape.

    Raises:
        ValueError: a value is invalid; the message names the setting, and does not repeat a token.
    """

    token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    max_waiting: int = DEFAULT_MAX_WAITING
    read_token: str | None = field(default=None, repr=False)
    is_read_only: bool = False
    hides_data: bool = False
    hosts: frozenset[HostAndPort] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for token in (self.token, self.read_token):
            if token is not None:
                check_token(token)
        if self.token is not None and self.token == self.read_token:
            raise ValueError("the token that looks must not be the one that acts")
        object.__setattr__(self, "hosts", frozenset(map(_allowed_host, self.allowed_hosts)))
        if isinstance(self.max_waiting, bool) or not isinstance(self.max_waiting, int):
            raise ValueError(f"max_waiting must be an int, not {type(self.max_waiting).__name__}")  # noqa: TRY004 - as documented
        if self.max_waiting < 1:
            raise ValueError("max_waiting must be at least 1")

    @property
    def needs_token(self) -> bool:
        """Whether requests must carry a token."""
        return self.token is not None or self.read_token is not None


def check_token(token: str) -> str:
    """Return the token if a request can carry it; else raise a ValueError, which does not repeat it."""
    if _TOKEN.fullmatch(token) is None:
        raise ValueError("the token must have 1 to 4096 visible ASCII characters, and no space")
    return token


def host_list(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the hosts in comma lists; raises a ValueError if one of them is not a host."""
    hosts = tuple(part.strip() for text in texts for part in text.split(",") if part.strip())
    for host in hosts:
        _allowed_host(host)
    return hosts


def name_in(host: str) -> tuple[str, ...]:
    """Return the name, if ``host`` is one, in the form that requests to it will have."""
    try:
        given = HostAndPort.of(host)
    except ValueError:
        return ()
    return () if given.address is not None else (given.host,)


def _allowed_host(text: str) -> HostAndPort:
    try:
        return HostAndPort.of(text)
    except ValueError:
        raise ValueError(
            f"{text[:100]!r} is not a host, or a host and a port, that could be allowed"
        ) from None


def web_token(environ: Mapping[str, str], name: str = "BEEQ_WEB_TOKEN") -> str | None:
    """Return the token in a variable, or None. Raises a ValueError, which names it, if it is invalid."""
    text = environ.get(name)
    try:
        return None if text is None else check_token(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def read_token(environ: Mapping[str, str]) -> str | None:
    """Return ``BEEQ_WEB_READ_TOKEN``, likewise."""
    return web_token(environ, "BEEQ_WEB_READ_TOKEN")


def _is_on(environ: Mapping[str, str], name: str) -> bool:
    """Return whether a variable is on, by the words that the command's options take, too."""
    text = environ.get(name, "").strip().lower()
    if text in ("", "0", "f", "false", "n", "no", "off"):
        return False
    if text in ("1", "t", "true", "y", "yes", "on"):
        return True
    raise ValueError(f"{name}: it must be 1 or 0")


def policy_from_environment(environ: Mapping[str, str]) -> Policy:
    """Return the policy that the environment configures.

    That is ``BEEQ_WEB_TOKEN``, ``BEEQ_WEB_READ_TOKEN``, ``BEEQ_ALLOW_HOST``, ``BEEQ_MAX_WAITING``,
    ``BEEQ_READ_ONLY`` and ``BEEQ_HIDE_DATA``.

    Raises:
        ValueError: a value is invalid; the message names the variable.
    """
    try:
        hosts = host_list([environ.get("BEEQ_ALLOW_HOST", "")])
    except ValueError as error:
        raise ValueError(f"BEEQ_ALLOW_HOST: {error}") from None
    text = environ.get("BEEQ_MAX_WAITING", str(DEFAULT_MAX_WAITING)).strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 16 and int(text) > 0):  # noqa: PLR2004 - digits enough
        raise ValueError("BEEQ_MAX_WAITING: it is not a valid number of jobs, which is at least 1")
    return Policy(
        token=web_token(environ),
        read_token=read_token(environ),
        allowed_hosts=hosts,
        max_waiting=int(text),
        is_read_only=_is_on(environ, "BEEQ_READ_ONLY"),
        hides_data=_is_on(environ, "BEEQ_HIDE_DATA"),
    )
