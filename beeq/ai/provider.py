"""The AI provider's address and credentials: base URL, key, further headers. No IO.

All of this comes from the configuration. What may be secret in it (the key, the password of the URL, values
of headers, tokens in the query, the proxy's password) is known to the ``redactor``.
"""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx

from beeq.ai.errors import AIFailed
from beeq.ai.redaction import Redactor
from beeq.http_client.connections import HTTPProxy
from beeq.process import VERSION

BASE_URL_SETTING = "BEEQ_AI_BASE_URL"
KEY_SETTING = "BEEQ_AI_API_KEY"
HEADERS_SETTING = "BEEQ_AI_HEADERS"
PROXY_SETTING = "BEEQ_AI_PROXY"
#: The headers of requests that must not hold a secret.
PLAIN_HEADERS = {
    "user-agent": f"beeq/{VERSION}",
    "accept": "*/*",
    # The bounds on responses would not bound what compressed bytes expand to.
    "accept-encoding": "identity",
}
_MAX_URL_LENGTH = 8192
_PORTS = {"http": 80, "https": 443}
_MAX_PORT = 65535
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
#: Headers that a request sets itself.
_OWN_HEADERS = frozenset(
    (
        "accept-encoding", "connection", "content-length", "content-type", "expect", "host",
        "idempotency-key", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
    )
)  # fmt: skip
#: The names of headers and of fields in a query that hold no secret, if they hold none of the next.
_SECRET_NAME = re.compile(r"auth|code|cookie|cred|key|pass|pw|secret|sess|sig|token|user", re.IGNORECASE)
#: A shorter value of a header is a word such as "true", which messages may contain.
_SHORTEST_VALUE = 4


class Provider:
    """One provider. The key is for its own origin only.

    The key is sent as bearer token; without one, user and password in the base URL are sent as basic
    authentication. ``headers`` is a JSON object, whose texts are sent too, and win. Raises ValueError if one
    of these is invalid; the message names the setting and holds nothing of it.
    """

    def __init__(
        self, base_url: str, api_key: str | None, headers: str | None = None, proxy: str | None = None
    ) -> None:
        url = _base(base_url)
        self._base = url.copy_with(userinfo=b"", fragment=None)
        self.headers = dict(PLAIN_HEADERS)
        # A user without a password is often a token.
        secrets = [api_key or "", url.password or url.username]
        secrets += [value for name, value in url.params.multi_items() if _SECRET_NAME.search(name)]
        if api_key:
            if not api_key.isascii() or not api_key.isprintable() or " " in api_key:
                raise ValueError(f"{KEY_SETTING} must be printable ASCII without spaces")
            self.headers["authorization"] = f"Bearer {api_key}"
        elif url.userinfo:
            token = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
            self.headers["authorization"] = f"Basic {token}"
            secrets.append(token)
        own = _headers(headers)
        self.headers |= own
        for value in own.values():
            secrets += _secrets_in(value)
        self.proxy, proxy_secrets = _proxy(proxy)
        self.redactor = Redactor([*secrets, *proxy_secrets])

    def __repr__(self) -> str:
        return "Provider(…)"

    def endpoint(self, *segments: str) -> httpx.URL:
        """Return a URL below the base URL; each segment is encoded, so it stays one segment."""
        path, _, query = self._base.raw_path.partition(b"?")
        below = "/".join(quote(segment, safe="") for segment in segments).encode()
        target = path.rstrip(b"/") + b"/" + below
        return self._base.copy_with(raw_path=target + (b"?" + query if query else b""))

    def url(self, text: str, base: httpx.URL | None = None) -> httpx.URL:
        """Return a URL from a response, which may be relative to ``base``; the provider's own by default.

        Raises AIFailed if it is not an http or https URL, or if it holds the key.
        """
        url = http_url(text, base or self._base)
        if url is None:
            raise AIFailed("AI provider: the url in its response is not a valid URL")
        return url.copy_with(userinfo=b"", fragment=None)

    def checked(self, url: httpx.URL) -> httpx.URL:
        """Return a URL that a response chose, unless it holds the key: URLs get into logs."""
        if self.redactor.is_in(str(url)):
            raise AIFailed("AI provider: the url in its response holds the key, and is not fetched")
        return url

    def owns(self, url: httpx.URL) -> bool:
        """Return whether a URL is of the base URL's origin."""
        return _origin(url) == _origin(self._base)


def http_url(text: str, base: httpx.URL | None = None) -> httpx.URL | None:
    """Return an http or https URL, relative to ``base`` if there is one; None if the text is not one."""
    if not text or len(text) > _MAX_URL_LENGTH or not text.isprintable():
        return None
    try:
        url = httpx.URL(text) if base is None else base.join(text)
        host = url.host  # raises for a name that is not valid IDNA, such as "xn--"
    except (httpx.InvalidURL, ValueError):
        return None
    return url if url.scheme in _PORTS and host and _has_port(url) else None


def _base(text: str) -> httpx.URL:
    url = http_url(text)
    if url is None or url.fragment:
        raise ValueError(f"{BASE_URL_SETTING} must be an http or https URL with a host, and no fragment")
    return url


def _has_port(url: httpx.URL) -> bool:
    return 0 < (_PORTS[url.scheme] if url.port is None else url.port) <= _MAX_PORT


def _origin(url: httpx.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port or _PORTS.get(url.scheme)


def _headers(text: str | None) -> dict[str, str]:
    """Return the headers in a JSON object, names in lower case. Messages hold no value."""
    if text is None:
        return {}
    try:
        # As pairs: of two values for one name none must get lost, nor escape the redactor.
        pairs: Any = json.loads(text, object_pairs_hook=lambda found: found)
    except (ValueError, RecursionError):
        pairs = None
    if not isinstance(pairs, list) or not text.lstrip().startswith("{"):
        raise ValueError(f"{HEADERS_SETTING} must be a JSON object of names and texts") from None
    headers: dict[str, str] = {}
    for given, value in pairs:
        name = given.lower()
        if not _HEADER_NAME.fullmatch(given) or name in headers:
            raise ValueError(f"{HEADERS_SETTING}: a name is not that of a header, or is there twice")
        if name in _OWN_HEADERS:
            raise ValueError(f"{HEADERS_SETTING} must not hold {name}, which is each request's own")
        if not isinstance(value, str) or not value.isascii() or not (value or "-").isprintable():
            raise ValueError(f"{HEADERS_SETTING}: {name} must be a text of printable ASCII")
        headers[name] = value.strip()
    return headers


def _secrets_in(value: str) -> Iterator[str]:
    """Yield a header's secrets: its value, and the part after a scheme such as Bearer."""
    scheme, _, credentials = value.partition(" ")
    yield from (part for part in (value, credentials.strip()) if len(part) >= _SHORTEST_VALUE)
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(credentials.strip(), validate=True).decode()
        except ValueError:
            return
        yield from (part for part in (decoded, decoded.partition(":")[2]) if part)


def _proxy(text: str | None) -> tuple[HTTPProxy | None, list[str]]:
    """Return the proxy, and its secrets."""
    if text is None:
        return None, []
    url = http_url(text)
    if url is None or url.path.strip("/") or url.query or url.fragment:
        raise ValueError(f"{PROXY_SETTING} must be http:// or https:// with a host, and no path")
    if not url.userinfo:
        return HTTPProxy(str(url)), []
    auth = (url.username.encode(), url.password.encode())
    token = base64.b64encode(b":".join(auth)).decode()
    return HTTPProxy(str(url.copy_with(userinfo=b"")), auth), [url.password or url.username, token]
