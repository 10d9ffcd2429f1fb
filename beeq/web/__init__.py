"""The HTTP API: ``beeq.web:app``, an ASGI application for any server; ``create_app`` makes your own.

``app`` reads ``BEEQ_REDIS_URL`` and the other variables when a server starts it, not when it is imported.
There is no authentication: it is for a private network. Needs the extra ``web``.

Here: the application (``application``), its routes (``routes``), requests (``bodies``), responses
(``responses``), the document (``openapi``), and uvicorn (``server``). Not here: what a job is, and what
happens to it (``beeq.service``); nothing else in beeq imports this package.
"""

import os

try:
    import starlette  # noqa: F401 - only to say which extra is missing
except ImportError:
    raise ImportError("beeq.web needs Starlette: pip install 'beequeue[web]'", name="starlette") from None

from beeq.web.application import Application, create_app, service_for, service_from_environment

#: Configured by the environment.
app = create_app(lambda: service_from_environment(os.environ))

__all__ = ["Application", "app", "create_app", "service_for", "service_from_environment"]
