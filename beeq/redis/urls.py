"""Redis URLs: parses the forms that beeq understands, and redacts secrets in any URL. Text only.

==============================================================  ==========================================
``redis://user:password@host:6379/0``                           one server, as redis-py reads it
``rediss://…``                                                  … over TLS
``unix:///run/redis.sock?db=0``                                 … over a Unix socket
``redis+sentinel://user:password@h1:26379,h2:26379/name/0``     the master that Sentinels know by a name
``redis+cluster://user:password@h1:6379,h2:6379``               a cluster
``rediss+sentinel://…``, ``rediss+cluster://…``                 … over TLS, to the Sentinels as well
``embedded:``, ``embedded:folder``                              a server of the folder's own
==============================================================  ==========================================

All but the last take the options of redis-py's URLs: ``?ssl_ca_certs=…&client_name=…``. User and password
are the master's, or the nodes'; the Sentinels' are ``?sentinel_username=…&sentinel_password=…``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from beeq.protocol.keys import hash_tag_of

DEFAULT_URL = "redis://127.0.0.1:6379"
SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
SCHEMES = ("redis", "rediss", "unix", *SENTINEL_SCHEMES, *CLUSTER_SCHEMES, "embedded")
#: Replaces what is not shown.
HIDDEN = "***"
#: Options that hold no secret, in which only words and numbers are shown.
_SHOWN_OPTIONS = frozenset(
    (
        "client_name", "db", "decode_responses", "encoding", "health_check_interval", "max_connections",
        "protocol", "socket_connect_timeout", "socket_timeout", "ssl_cert_reqs", "ssl_check_hostname",
        "timeout",
    )
)  # fmt: skip
_SHOWN_VALUE = re.compile(r"[\w.-]{1,64}", re.ASCII)
_SHOWN_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII)
_SHOWN_PATH = re.compile(r"[\w./~+-]*", re.ASCII)
#: The name of an option in a text that may hold URLs …
_OPTION_NAME = re.compile(r"(?<=[?&])([^\s=&?]{1,200})=")
#: … and of one that may hold a secret.
_SECRET_NAME = re.compile(r"auth|cred|key|pass|pwd|secret|sig|token|user", re.IGNORECASE)
#: An @ that does not end what is hidden already.
_BARE_AT = re.compile(r"(?<!\*{3})@")
_SENTINEL_PORT, _CLUSTER_PORT = 26379, 6379
_SENTINEL_FORM = "redis+sentinel://host:26379,host:26379/name/0"
_CLUSTER_FORM = "redis+cluster://host:6379,host:6379"
#: Options that are not passed on to Sentinels.
_OF_THE_MASTER = ("db", "username", "password", "sentinel_username", "sentinel_password")


@dataclass(frozen=True)
class ServerGroup:
    """Several servers behind one URL: Sentinels and the master whose name they know, or nodes of a cluster.

    Attributes:
        addresses: of the Sentinels, or of the cluster's nodes; host and port.
        name: the master's; empty for a cluster.
        url: the plain URL of the first address, with what the master or the nodes take: credentials,
            database, options.
        sentinel_url: the same with what the Sentinels take; empty for a cluster.
    """

    addresses: list[tuple[str, int]]
    name: str
    url: str = field(repr=False)
    sentinel_url: str = field(default="", repr=False)


def shown_url(url: str) -> str:
    """Return the URL without secrets: rebuilt from the parts that are understood.

    Of an ambiguous URL, as one with a ``#`` or ``/`` in its password, only the scheme is shown.
    """
    scheme = scheme_of(url)
    if scheme == "embedded":
        return url
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        parts, options = urlsplit(""), []
    _userinfo, at, hosts = parts.netloc.rpartition("@")
    is_clear = (
        scheme in SCHEMES
        and not parts.fragment
        and "@" not in parts.path + parts.query
        and _SHOWN_PATH.fullmatch(parts.path)
        and (all(map(_SHOWN_HOST.fullmatch, hosts.split(","))) or (scheme == "unix" and not hosts))
    )
    if not is_clear:
        return f"{scheme}:{HIDDEN}" if scheme in SCHEMES else HIDDEN
    shown = [
        f"{name}={value}"
        for name, value in options
        if name in _SHOWN_OPTIONS and _SHOWN_VALUE.fullmatch(value)
    ]
    if len(shown) < len(options):
        shown.append(HIDDEN)
    where = f"{HIDDEN}@{hosts}" if at else hosts
    return f"{scheme}://{where}{parts.path}{'?' * bool(shown)}{'&'.join(shown)}"


def secrets_in(url: str) -> Iterator[str]:
    """Yield the user's password in a URL, as written and decoded, and its options' secrets."""
    try:
        parts = urlsplit(url)
        options = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return
    userinfo = parts.netloc.rpartition("@")[0]
    given = [userinfo.partition(":")[2] or userinfo]
    given += [value for name, value in options if _SECRET_NAME.search(name)]
    for secret in given:
        yield from (secret, unquote(secret))


def redact(text: str, *secrets: str) -> str:
    """Return ``text`` with these secrets, and those of any URL in it, removed: users, passwords, tokens.

    It removes rather too much: where a URL ends is not always clear.
    """
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = re.sub(r"\S+", _without_userinfo, text)
    start, end = text.find("//") + 2, text.rfind("@")
    if 2 <= start <= end and _BARE_AT.search(text, start):  # noqa: PLR2004 - there is a //
        text = text[:start] + HIDDEN + text[end:]  # a password has a blank in it
    return _without_secret_options(text)


def _without_userinfo(token: re.Match[str]) -> str:
    """Return a word of a text; from a URL cut what precedes the last @: a password may hold others."""
    text = token[0]
    start, end = text.find("//") + 2, text.rfind("@")
    return text[:start] + HIDDEN + text[end:] if 2 <= start <= end else text  # noqa: PLR2004 - there is a //


def _without_secret_options(text: str) -> str:
    kept: list[str] = []
    at = 0
    for name in _OPTION_NAME.finditer(text):
        if name.start() >= at and _SECRET_NAME.search(unquote(name[1])):
            kept += (text[at : name.end()], HIDDEN)
            end = text.find("&", name.end())
            at = len(text) if end < 0 else end
    return "".join([*kept, text[at:]])


def scheme_of(url: str) -> str:
    """Return what is before the first colon, in lower case; empty if there is none."""
    return url.split(":", 1)[0].lower() if ":" in url else ""


def address_text(host: str, port: int) -> str:
    """Return an address as a URL has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_url(url: str) -> str:
    """Return ``url`` if beeq understands it. No error repeats it, for it may hold a password."""
    if not isinstance(url, str) or not url.strip():
        raise ValueError("the Redis URL is empty")
    scheme = scheme_of(url)
    if scheme not in SCHEMES:
        raise ValueError(f"the Redis URL must begin with one of {', '.join(SCHEMES)}")
    try:
        _check_form(scheme, url)
    except _Malformed as malformed:
        raise ValueError(f"the Redis URL is malformed: {malformed}") from None
    except ValueError:
        raise ValueError("the Redis URL is malformed") from None
    return url


class _Malformed(ValueError):
    """The text says what to write instead, without any part of the URL."""


def _check_form(scheme: str, url: str) -> None:
    """Raise ValueError for a malformed URL, with a hint if possible."""
    if scheme == "embedded":
        return
    if scheme in SENTINEL_SCHEMES or scheme in CLUSTER_SCHEMES:
        parse_server_group(url)
        return
    parts = urlsplit(url)
    if scheme == "unix":
        if not parts.path:
            raise _Malformed("it names no socket, as in unix:///run/redis.sock")
        return
    if "," in parts.netloc.rpartition("@")[2]:
        raise _Malformed(f"several hosts are {_CLUSTER_FORM} or {_SENTINEL_FORM}")
    if not parts.hostname or parts.port == 0 or not re.fullmatch(r"/?\d*", parts.path):
        raise ValueError
    if not parts.hostname.isprintable() or " " in parts.hostname:
        raise ValueError  # not a host; maybe a password


def parse_server_group(url: str) -> ServerGroup:
    """Read a Sentinel or cluster URL. Raises ValueError if it is malformed."""
    parts = urlsplit(url)
    if parts.fragment:
        raise _Malformed("a # in a password is written %23")
    plain_scheme, _, kind = parts.scheme.partition("+")
    is_cluster = kind == "cluster"
    userinfo, _, hosts = parts.netloc.rpartition("@")
    name, _, db = parts.path.strip("/").partition("/")
    query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    given = dict(query)
    if is_cluster and ((name or db) not in ("", "0") or given.get("db", "0") != "0"):
        raise _Malformed(f"a cluster has one database and no name: {_CLUSTER_FORM}")
    if not is_cluster and (not name or not (db.isdecimal() or not db)):
        raise _Malformed(f"a Sentinel URL names its master, and maybe a database: {_SENTINEL_FORM}")
    if is_cluster and not {"sentinel_username", "sentinel_password"}.isdisjoint(given):
        raise _Malformed("a cluster has no Sentinels")
    default_port = _CLUSTER_PORT if is_cluster else _SENTINEL_PORT
    addresses = [_address(host, default_port) for host in hosts.split(",")]
    host, port = addresses[0]
    where = address_text(host, port)
    own = urlencode([(option, value) for option, value in query if not option.startswith("sentinel_")])
    node = f"{plain_scheme}://{userinfo}{'@' * bool(userinfo)}{where}/{'' if is_cluster else db}"
    group = ServerGroup(addresses, "" if is_cluster else unquote(name), f"{node}{'?' * bool(own)}{own}")
    if is_cluster:
        return group
    its_user, its_password = given.get("sentinel_username", ""), given.get("sentinel_password", "")
    credentials = (
        f"{quote(its_user, safe='')}:{quote(its_password, safe='')}@" if its_user or its_password else ""
    )
    shared = urlencode([(option, value) for option, value in query if option not in _OF_THE_MASTER])
    sentinel = f"{plain_scheme}://{credentials}{where}{'?' * bool(shared)}{shared}"
    return ServerGroup(group.addresses, group.name, group.url, sentinel)


def _address(text: str, default_port: int) -> tuple[str, int]:
    matched = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+)(?::(\d{1,5}))?", text)
    port = int(matched[2] or default_port) if matched else 0
    if matched is None or not 0 < port < 2**16:
        raise ValueError("a server's address is malformed")
    return matched[1].strip("[]"), port


class HashTagMissing(ValueError):
    """A queue's keys would not be in one slot of a cluster."""

    def __init__(self) -> None:
        super().__init__("in a cluster the prefix or the queue's name needs a hash tag, such as {bq}")


def has_hash_tag(key: str) -> bool:
    """Return whether a Redis Cluster would place a key by a part of it in braces."""
    return bool(hash_tag_of(key))


def check_hash_tag(key: str) -> None:
    """Raise HashTagMissing if a cluster would not keep the key together with the others of its queue."""
    if not has_hash_tag(key):
        raise HashTagMissing
