"""Where everything finds Redis, and the commands find MongoDB. Pure: the environment is passed in.

An option, or ``redis=``, wins over ``BEEQ_*``, and that over the plain names; without any of them the library
goes to Redis on this machine, and the commands to the embedded server. A value that is empty or invalid is a
ValueError: it names the option or variable, and repeats no URL, which may hold a password.
"""

import re
from collections.abc import Callable, Mapping
from typing import Literal, get_args
from urllib.parse import parse_qs, quote, urlsplit

from beeq.redis.urls import CLUSTER_SCHEMES, DEFAULT_URL, SENTINEL_SCHEMES, check_url

#: How the mirror writes ``projectId``; ``beeq.mirror.project_ids`` says what each does.
ProjectIdType = Literal["auto", "text", "objectid"]

EMBEDDED = "embedded:"
_URLS = ("BEEQ_REDIS_URL", "REDIS_URL")
MONGO_SCHEMES = ("mongodb", "mongodb+srv")
_HOST = re.compile(r"[\w.-]+|\[?[0-9A-Fa-f:.]+(%\w+)?\]?")


def redis_url(option: str | None, environ: Mapping[str, str]) -> str:
    """Return the configured Redis URL; ``embedded:`` if there is none.

    ``BEEQ_REDIS_URL`` wins over ``REDIS_URL``, and that over ``REDIS_HOST``, ``REDIS_PORT``,
    ``REDIS_PASSWORD`` and ``REDIS_DB``. The last two are also added to a ``REDIS_URL`` without them.
    """
    if option is not None:
        return _checked("--redis-url", option)
    if "BEEQ_REDIS_URL" in environ:
        return _checked("BEEQ_REDIS_URL", environ["BEEQ_REDIS_URL"])
    if "REDIS_URL" in environ:
        url = _checked("REDIS_URL", environ["REDIS_URL"])
        return _filled(url, password=environ.get("REDIS_PASSWORD"), db=_number(environ, "REDIS_DB"))
    return _from_parts(environ)


def library_redis_url(environ: Mapping[str, str]) -> str:
    """Return the Redis URL of a queue made without ``redis=``; this machine's Redis if none is configured."""
    return redis_url(None, environ) if is_redis_configured(environ) else DEFAULT_URL


def is_redis_configured(environ: Mapping[str, str]) -> bool:
    """Return whether the environment says where Redis is. A ValueError as in ``redis_url``."""
    return redis_url(None, environ) != EMBEDDED or any(name in environ for name in _URLS)


def mongo_url(option: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the configured Mongo URL; None if there is none, and hence no mirror.

    ``BEEQ_MONGO_URL`` wins over ``MONGODB_URI``.
    """
    for source, url in (
        ("--mongo-url", option),
        ("BEEQ_MONGO_URL", environ.get("BEEQ_MONGO_URL")),
        ("MONGODB_URI", environ.get("MONGODB_URI")),
    ):
        if url is not None:
            return _checked(source, url, check_mongo_url)
    return None


def mongo_project_id(option: str | None, environ: Mapping[str, str]) -> ProjectIdType:
    """Return how the mirror writes ``projectId``: ``auto`` if nothing else is configured."""
    for source, text in (
        ("--mongo-project-id", option),
        ("BEEQ_MONGO_PROJECT_ID", environ.get("BEEQ_MONGO_PROJECT_ID")),
    ):
        if text is not None:
            try:
                return check_project_id_type(text)
            except ValueError as error:
                raise ValueError(f"{source}: {error}") from None
    return "auto"


def wait_replicas(environ: Mapping[str, str]) -> int:
    """Return ``BEEQ_WAIT_REPLICAS``, which is the setting ``wait_replicas``; 0 if there is none."""
    return _number(environ, "BEEQ_WAIT_REPLICAS") or 0


def _checked(source: str, url: str, check: Callable[[str], str] = check_url) -> str:
    try:
        return check(url)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _from_parts(environ: Mapping[str, str]) -> str:
    host, password = environ.get("REDIS_HOST"), environ.get("REDIS_PASSWORD")
    port, db = _number(environ, "REDIS_PORT"), _number(environ, "REDIS_DB")
    if host is None and port is None and db is None and not password:
        return EMBEDDED
    if host is not None and _HOST.fullmatch(host) is None:
        raise ValueError("REDIS_HOST: it is not a valid host")
    if port is not None and not 0 < port < 2**16:
        raise ValueError("REDIS_PORT: it is not a valid port")
    if host is None:
        host = "localhost"
    elif ":" in host:
        host = f"[{host.strip('[]')}]"
    url = _checked("REDIS_HOST", f"redis://{host}:{port or 6379}")
    return _filled(url, password=password, db=db)


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if text is None:
        return None
    if not (text.strip().isascii() and text.strip().isdecimal()):
        raise ValueError(f"{name}: it is not a valid number")
    return int(text)


def _filled(url: str, *, password: str | None, db: int | None) -> str:
    """Return the URL with password and database added where it has none."""
    parts = urlsplit(url)
    if parts.scheme == EMBEDDED.removesuffix(":"):
        return url
    given = parse_qs(parts.query)
    userinfo, _, address = parts.netloc.rpartition("@")
    if password and ":" not in userinfo and "password" not in given:
        parts = parts._replace(netloc=f"{userinfo}:{quote(password, safe='')}@{address}")
    if db is not None and "db" not in given:
        if parts.scheme == "unix":
            query = f"{parts.query}&db={db}" if parts.query else f"db={db}"
            parts = parts._replace(query=query)
        elif parts.scheme in CLUSTER_SCHEMES:
            pass  # it has one database
        elif parts.scheme in SENTINEL_SCHEMES:
            if "/" not in parts.path.strip("/"):
                parts = parts._replace(path=f"{parts.path.rstrip('/')}/{db}")
        elif not parts.path.strip("/"):
            parts = parts._replace(path=f"/{db}")
    # Not urlunsplit: it writes unix:///path as unix:/path.
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{parts.path}{query}"


def check_mongo_url(url: str) -> str:
    """Return ``url`` if it is a valid MongoDB URL; else raise a ValueError, which does not repeat it."""
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in MONGO_SCHEMES and bool(parts.netloc.rpartition("@")[2])
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ValueError("the Mongo URL must begin with mongodb:// or mongodb+srv://, and name a host")
    return url


def check_project_id_type(value: str) -> ProjectIdType:
    """Return ``value`` if it is one of ``auto``, ``text`` and ``objectid``; else raise a ValueError."""
    known: tuple[ProjectIdType, ...] = get_args(ProjectIdType)
    for one in known:
        if value == one:
            return one
    raise ValueError(f"the type of project ids must be one of {', '.join(known)}")
