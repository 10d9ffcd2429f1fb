"""The path of a request as it was sent: an id, or a queue's name, may hold a slash. Pure."""

from urllib.parse import quote, unquote_to_bytes

from starlette.types import Scope


def encoded_path(scope: Scope) -> str:
    """Return the path for the router: not decoded, because an id may hold a slash.

    All but unreserved characters are percent-encoded, also those that the client left unencoded.
    """
    path: str = scope["path"]
    raw_path: bytes = (scope.get("raw_path") or b"").partition(b"?")[0]
    if unquote_to_bytes(raw_path).decode(errors="replace") != path:
        raw_path = quote(path).encode()  # the server gives no raw path, or a middleware changed the path
    return "/".join(quote(unquote_to_bytes(segment), safe="") for segment in raw_path.split(b"/"))
