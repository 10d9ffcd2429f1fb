"""Redis URLs: which ones beeq understands, and how to show one. Text only.

``redis://``, ``rediss://``, ``unix://`` as redis-py reads them; ``redis+sentinel://h1:26379,h2:26379/name/0``;
``redis+cluster://h1:6379,h2:6379``; ``embedded:`` and ``embedded:folder``.
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

DEFAULT_URL = "redis://127.0.0.1:6379"
SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "redis+cluster", "embedded")
#: Up to the last @: a password may hold others, and slashes.
_USERINFO = re.compile(r"(?<=//)\S*@")
_CREDENTIAL = re.compile(r"([?&](?:username|password)=)[^&\s]*")
_SENTINEL_PORT, _CLUSTER_PORT = 26379, 6379


@dataclass(frozen=True)
class ServerGroup:
    """Several servers behind one URL, and what redis-py's connections take: username, password, db."""

    addresses: list[tuple[str, int]]
    #: Of the Sentinels' master; empty for a cluster.
    name: str
    options: dict[str, str | int]


def redact(text: str) -> str:
    """Return ``text`` with the user and password of any URL in it removed."""
    return _CREDENTIAL.sub(r"\1***", _USERINFO.sub("***@", text))


def scheme_of(url: str) -> str:
    """Return what is before the first colon, in lower case; empty if there is none."""
    return url.split(":", 1)[0].lower() if ":" in url else ""


def check_url(url: str) -> str:
    """Return ``url`` if beeq understands it. No error repeats it, for it may hold a password."""
    if not isinstance(url, str) or not url.strip():
        raise ValueError("the Redis URL is empty")
    scheme = scheme_of(url)
    if scheme not in SCHEMES:
        raise ValueError(f"the Redis URL must begin with one of {', '.join(SCHEMES)}")
    try:
        is_valid = _is_valid(scheme, url)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError("the Redis URL is malformed")
    return url


def _is_valid(scheme: str, url: str) -> bool:
    if scheme == "embedded":
        return True
    if scheme in ("redis+sentinel", "redis+cluster"):
        return bool(parse_server_group(url).addresses)
    parts = urlsplit(url)
    if scheme == "unix":
        return bool(parts.path)
    return bool(parts.hostname) and parts.port != 0 and re.fullmatch(r"/?\d*", parts.path) is not None


def parse_server_group(url: str) -> ServerGroup:
    """Read a Sentinel or cluster URL. Raises ValueError if it is malformed."""
    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise ValueError("a fleet's URL takes no options")
    is_cluster = parts.scheme == "redis+cluster"
    userinfo, _, hosts = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    options: dict[str, str | int] = {}
    if user:
        options["username"] = unquote(user)
    if password:
        options["password"] = unquote(password)
    name, _, db = parts.path.strip("/").partition("/")
    if is_cluster and (name or db) not in ("", "0"):
        raise ValueError("a cluster has one database and no name")
    if not is_cluster:
        if not name or not (db.isdecimal() or not db):
            raise ValueError("a Sentinel URL names its master, and maybe a database")
        options["db"] = int(db or 0)
    default_port = _CLUSTER_PORT if is_cluster else _SENTINEL_PORT
    addresses = [_address(host, default_port) for host in hosts.split(",")]
    return ServerGroup(addresses, "" if is_cluster else name, options)


def _address(text: str, default_port: int) -> tuple[str, int]:
    matched = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]\s]+)(?::(\d{1,5}))?", text)
    port = int(matched[2] or default_port) if matched else 0
    if matched is None or not 0 < port < 2**16:
        raise ValueError("a server's address is malformed")
    return matched[1].strip("[]"), port


def check_hash_tag(key: str) -> None:
    """Raise ValueError if a Redis Cluster would not keep the key together with the others of its queue."""
    tag, closing, _ = key.partition("{")[2].partition("}")
    if not tag or not closing:
        raise ValueError("in a cluster the prefix or the queue's name needs a hash tag, such as {bq}")
