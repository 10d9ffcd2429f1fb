"""The HTTP face: ``beeq.web:app``, an ASGI application for any server; ``create_app`` makes one of your own.

``app`` reads ``BEEQ_REDIS_URL`` and its kin when a server starts it, not when it is imported. There is no
authentication: it is for the platform's own network. Needs the extra ``web``; nothing else in beeq
imports this package.
"""

from __future__ import annotations

import os

try:
    import starlette  # noqa: F401 - only to say which extra is missing
except ImportError:
    raise ImportError("beeq.web needs Starlette: pip install 'beequeue[web]'", name="starlette") from None

from beeq.web.application import Application, create_app, service_for, service_from_environment

#: Configured by the environment.
app = create_app(lambda: service_from_environment(os.environ))

__all__ = ["Application", "app", "create_app", "service_for", "service_from_environment"]
