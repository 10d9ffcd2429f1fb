"""Headers that receivers require, such as authentication, by origin. No IO.

They come from the configuration. Their values are secrets: no message and no ``repr`` shows one.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import httpcore
import httpx

from beeq.http_client.addresses import canonical

HEADERS_SETTING = "BEEQ_WEBHOOK_HEADERS"
_COMPLAINT = f"{HEADERS_SETTING} must be a JSON object: origin → object of header names and texts"
_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
#: Headers that a delivery sets itself.
_OWN = frozenset(
    (
        "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect",
        "host",
        "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
        "webhook-id", "webhook-signature", "webhook-timestamp",
    )
)  # fmt: skip

_Key = tuple[str, str, int]


class ReceiverHeaders:
    """The headers for each origin: scheme, host and port. A message to any other origin gets none of them."""

    def __init__(self, headers: Mapping[_Key, Mapping[str, str]]) -> None:
        self._headers = headers

    def __repr__(self) -> str:
        return f"ReceiverHeaders(of {len(self._headers)} origins)"

    @classmethod
    def parse(cls, text: str) -> "ReceiverHeaders":
        """Return the headers in a JSON object: origin → object of names and texts.

        Raises ValueError if something is invalid; the message names the setting and no value.
        """
        found: dict[_Key, dict[str, str]] = {}
        for origin, headers in json_pairs(text, _COMPLAINT):
            key = _key_of(origin)
            if key in found:
                raise ValueError(f"{HEADERS_SETTING} names an origin twice")
            found[key] = _checked(headers)
        return cls(found)

    def of(self, origin: httpcore.Origin) -> Mapping[str, str]:
        """Return the headers for an origin, their names in lower case."""
        scheme = origin.scheme.decode("ascii")
        host = canonical(origin.host.decode("ascii"))
        return self._headers.get((scheme, host, origin.port), {})


class JSONPairs(list[tuple[str, Any]]):
    """A JSON object as written, with duplicate names."""


def json_pairs(text: str, complaint: str) -> JSONPairs:
    """Return the pairs of a JSON object; raises ValueError with ``complaint`` if the text is not one."""
    try:
        found = json.loads(text, object_pairs_hook=JSONPairs)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, JSONPairs):
        # Raised outside the handler: that exception holds the text, and would stay in this one's context.
        raise ValueError(complaint)  # noqa: TRY004 - a setting
    return found


def _key_of(origin: str) -> _Key:
    try:
        url = httpx.URL(origin)
        port = _PORTS[url.scheme] if url.port is None else url.port
        is_origin = bool(url.host) and url.raw_path == b"/" and not (url.userinfo or url.fragment)
    except (httpx.InvalidURL, ValueError, KeyError):
        port, is_origin = 0, False
    if not is_origin or not 0 < port <= _MAX_PORT:
        raise ValueError(
            f"{HEADERS_SETTING}: an origin must be like https://hooks.example.com or http://10.0.0.7:8080,"
            " without user, path or query"
        ) from None
    return url.scheme, canonical(url.raw_host.decode("ascii")), port


def _checked(headers: Any) -> dict[str, str]:
    checked: dict[str, str] = {}
    if not isinstance(headers, JSONPairs):
        raise ValueError(f"{HEADERS_SETTING}: an origin's headers must be an object")  # noqa: TRY004 - a setting
    for given, value in headers:
        name = given.lower()
        if not _NAME.fullmatch(given) or name in checked:
            raise ValueError(f"{HEADERS_SETTING}: a name is not that of a header, or is there twice")
        if name in _OWN:
            raise ValueError(f"{HEADERS_SETTING} must not hold {name}, which is each message's own")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value.strip():
            raise ValueError(f"{HEADERS_SETTING}: {name} must be a text of printable ASCII")
        checked[name] = value.strip()
    return checked
