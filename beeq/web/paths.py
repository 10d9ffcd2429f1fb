"""The path of a request as it was sent: an id, or a queue's name, may hold a slash. Pure."""

from urllib.parse import quote, unquote, unquote_to_bytes

from starlette.types import Scope


def encoded_path(scope: Scope) -> str:
    """Return the path for the router: not decoded, because an id may hold a slash.

    All but unreserved characters are percent-encoded, also those that the client left unencoded.
    """
    path: str = scope["path"]
    raw_path = _raw_path(scope)
    if unquote_to_bytes(raw_path).decode(errors="replace") != path:
        raw_path = quote(path).encode()  # the server gives no raw path, or a middleware changed the path
    return _encoded(raw_path)


def encoded_path_below(scope: Scope, base: str) -> str:
    """Return the path within ``base``, which is encoded and without a slash at its end; likewise encoded.

    The application that the page is mounted in may leave ``base`` in the path or cut it off; Litestar also
    ends what it has cut with a slash that nobody sent.
    """
    path = encoded_path(scope)
    if path == base or path.startswith(f"{base}/"):
        return path[len(base) :] or "/"
    sent = _encoded(_raw_path(scope))
    if sent == base or sent.startswith(f"{base}/"):
        rest = sent[len(base) :] or "/"
        if unquote(rest).strip("/") == scope["path"].strip("/"):
            return rest
    return path


def _raw_path(scope: Scope) -> bytes:
    raw_path: bytes = (scope.get("raw_path") or b"").partition(b"?")[0]
    return raw_path


def _encoded(raw_path: bytes) -> str:
    return "/".join(quote(unquote_to_bytes(segment), safe="") for segment in raw_path.split(b"/"))
