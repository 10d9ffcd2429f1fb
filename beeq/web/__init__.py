"""The HTTP API: ``beeq.web:app``, an ASGI application for any server; ``create_app`` makes your own.

``app`` reads ``BEEQ_REDIS_URL`` and the other variables when a server starts it, not when it is imported.
With ``BEEQ_WEB_TOKEN`` it answers clients that have the token, without it only programs on this machine.
Needs the extra ``web``.

Here: the application (``application``), its routes (``routes``), requests (``bodies``), responses
(``responses``), the OpenAPI document (``openapi``), access control (``access``, with the settings of
``policy``), total limits (``bounds``), uvicorn (``server``, ``connections``), and the page for people
(``page``). Not here: jobs and queues (``beeq.service``); nothing else in beeq imports this package.
"""

import os

try:
    import starlette  # noqa: F401 - only to say which extra is missing
except ImportError:
    raise ImportError("beeq.web needs Starlette: pip install 'beequeue[web]'", name="starlette") from None

from beeq.http_client.header_lines import read_lines_in_one_pass
from beeq.web.application import Application, create_app, service_for, service_from_environment
from beeq.web.page.application import Dashboard, dashboard
from beeq.web.policy import Policy, policy_from_environment

read_lines_in_one_pass()  # requests, too

#: Configured by the environment.
app = create_app(lambda: service_from_environment(os.environ))

__all__ = [
    "Application",
    "Dashboard",
    "Policy",
    "app",
    "create_app",
    "dashboard",
    "policy_from_environment",
    "service_for",
    "service_from_environment",
]
