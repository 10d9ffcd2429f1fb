"""Templates, and responses that a browser may only show."""

import hashlib
from pathlib import Path
from typing import Any

try:
    import jinja2
except ImportError:
    raise ImportError("beeq.web.page needs Jinja2: pip install 'beequeue[web]'", name="jinja2") from None
from markupsafe import Markup, escape
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from beeq.web.page import words
from beeq.web.page.addresses import has_address, segment
from beeq.web.page.charts import panels

_FOLDER = Path(__file__).parent
#: Of every response: nothing comes from, goes to, or is framed by another site.
SAFETY = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",  # without one, a browser would not say of which origin a form is
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
NEVER_KEPT = {"cache-control": "no-store"}
_PIECE_BYTES = 256 << 10
_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
FILES = {
    path.name: (path.read_bytes(), _TYPES[path.suffix[1:]])
    for path in sorted((_FOLDER / "static").iterdir())
    if path.suffix[1:] in _TYPES
}
#: Changes with the files: browsers keep them for long.
VERSION = hashlib.sha256(b"".join(content for content, _ in FILES.values())).hexdigest()[:12]


def _shown(value: Any) -> Any:
    """Return an expression's text for a template; invisible characters are shown, except in markup."""
    return value if isinstance(value, Markup) else words.visible(value)


_environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_environment.globals |= {
    "panels": panels.panels,
    "total_text": panels.total_text,
    "gaps_text": panels.gaps_text,
}
_environment.tests["addressable"] = has_address
_environment.filters |= {
    "rate": panels.rate,
    "clock": panels.clock,
    "share": panels.share,
    "raw": lambda text: Markup(escape(text)),  # noqa: S704 - escaped; for fields that are sent back
    "segment": segment,
    "duration": words.duration,
    "moment": words.moment,
    "number": words.number,
    "size": words.size,
    "preview": words.preview,
    "tree": words.json_tree,
    "lines": words.lines_of,
    "cut": words.cut,
}


def html(name: str, status: int = 200, /, **values: Any) -> Response:
    """Return a template's page."""
    text = _environment.get_template(name).render(**values)
    return Response(
        text.encode(errors="replace"),
        status,
        {**SAFETY, **NEVER_KEPT, "content-type": "text/html; charset=utf-8"},
    )


def redirect(address: str) -> Response:
    """Return a response that leads to an address of the page's own."""
    return Response(status_code=303, headers={**SAFETY, **NEVER_KEPT, "location": address})


def file(name: str) -> Response | None:
    """Return a file of the page's own."""
    if name not in FILES:
        return None
    content, media_type = FILES[name]
    kept = {"cache-control": "public, max-age=86400", "content-type": f"{media_type}; charset=utf-8"}
    return Response(content, headers={**SAFETY, **kept})


class _Pieces(Response):
    """A long body, sent as fast as it is taken, so that no second copy of it waits."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        body = memoryview(self.body)
        for start in range(0, len(body), _PIECE_BYTES):
            piece = bytes(body[start : start + _PIECE_BYTES])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def download(text: bytes, name: str) -> Response:
    """Return text that a browser saves, and does not open."""
    headers = {
        "content-type": "text/plain; charset=utf-8",
        "content-disposition": f'attachment; filename="{name}"',
    }
    return _Pieces(text, headers={**SAFETY, **NEVER_KEPT, **headers})
