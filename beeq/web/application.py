"""The ASGI application: its lifespan, the dispatch to routes, and the response to each error.

No response repeats an error's own text, which is for the log. The ``Host`` header is not used, and no
other origin is allowed (no CORS).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import quote, unquote_to_bytes

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from beeq.environment import mongo_url, redis_url
from beeq.errors import RedisError, RedisRefused
from beeq.jobs import InvalidJob
from beeq.redis.retry_delay import RetryDelay
from beeq.redis.urls import redact
from beeq.service import QueueService
from beeq.web.bodies import RequestBody
from beeq.web.responses import Refusal
from beeq.web.routes import REDIS_TIMEOUT_S, ROUTES, Handler

logger = logging.getLogger("beeq.web")

#: The delay after the first failure to connect; it doubles.
_FIRST_RETRY_MS = 500


def service_for(url: str, prefix: str, mongo_url: str | None = None) -> QueueService:
    """Return a service that only enqueues and queries: it gets no events and activates no delayed jobs.

    Raises:
        ValueError: the URL or prefix is invalid; the message says which, and repeats no URL.
        ImportError: there is a Mongo URL, but PyMongo is not installed.
    """
    return QueueService(
        redis=url,
        mongo_url=mongo_url,
        prefix=prefix,
        get_events=False,
        store_jobs=False,
        ensure_scripts=False,
        activate_delayed_jobs=False,
    )


def service_from_environment(environ: Mapping[str, str]) -> QueueService:
    """Return the service that the environment configures: Redis and MongoDB, and ``BEEQ_PREFIX``.

    Raises:
        ValueError: a value is empty or invalid; the message names it.
        ImportError: there is a Mongo URL, but PyMongo is not installed.
    """
    mirror_url = mongo_url(None, environ)
    return service_for(redis_url(None, environ), environ.get("BEEQ_PREFIX", "bq"), mirror_url)


def create_app(make_service: Callable[[], QueueService]) -> Application:
    """Return an application.

    Args:
        make_service: called once at each start; the application connects and closes what it returns.
            Its exceptions fail the start.
    """
    return Application(make_service)


class Application:
    """An ASGI 3 application. A server runs its lifespan; mounted into another, it needs ``running``."""

    def __init__(self, make_service: Callable[[], QueueService]) -> None:
        self._make_service = make_service
        self._service: QueueService | None = None  # set while it runs
        routes = [Route(path, self._resource(handlers)) for path, handlers in ROUTES.items()]
        self._router = Router(routes, redirect_slashes=False, default=_Endpoint(_unknown))

    def __repr__(self) -> str:
        return "<beeq.web.Application>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Accept requests. While Redis is not available they are answered with 503.

        Raises:
            RuntimeError: it runs already. Further, what ``make_service`` raises.
        """
        if self._service is not None:
            raise RuntimeError("the application runs already")
        service = self._service = self._make_service()
        # Connect now, so that the log shows a failure early, and the first request need not wait.
        connecting = asyncio.create_task(_connect(service))
        try:
            yield
        finally:
            self._service = None
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await service.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        elif scope["type"] == "http":
            root_path = quote(scope.get("root_path", ""))
            await self._router({**scope, "path": _encoded_path(scope), "root_path": root_path}, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _run_lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(self.running())
            except Exception as error:  # noqa: BLE001 - uvicorn would ignore an exception here
                await send({"type": "lifespan.startup.failed", "message": redact(_text(error))})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()  # until the server shuts down
        await send({"type": "lifespan.shutdown.complete"})

    # Requests.

    def _resource(self, handlers: Mapping[str, Handler]) -> _Endpoint:
        """Return the endpoint of one path."""
        methods = [*handlers, *(["HEAD"] if "GET" in handlers else []), "OPTIONS"]
        allow = {"allow": ", ".join(methods)}

        async def respond(scope: Scope, body: RequestBody) -> Response:
            method = scope["method"]
            if method == "OPTIONS":
                return Response(status_code=204, headers=allow)
            handler = handlers.get("GET" if method == "HEAD" else method)
            if handler is None:
                raise Refusal(405, "Method not allowed", headers=allow)
            if self._service is None:
                raise RuntimeError("the application does not run: its lifespan has not started, or has ended")
            return await handler(self._service, body, scope["path_params"])

        return _Endpoint(respond)


async def _unknown(_scope: Scope, _body: RequestBody) -> Response:
    raise Refusal(404, "Not found")


class _Endpoint:
    """Sends the response that ``respond`` returns, or the one for the error that it raises."""

    def __init__(self, respond: Callable[[Scope, RequestBody], Awaitable[Response]]) -> None:
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        body = RequestBody(scope, receive)
        response = await self._response(scope, body)
        if not await body.discard() and scope["http_version"].startswith("1"):
            response.headers["connection"] = "close"
        if scope["method"] == "HEAD":
            response.body = b""
        await response(scope, receive, send)

    async def _response(self, scope: Scope, body: RequestBody) -> Response:
        try:
            return await self._respond(scope, body)
        except Refusal as refusal:
            return refusal.response()
        except InvalidJob as error:
            return Refusal(400, str(error), faults=error.faults).response()
        except ClientDisconnect:
            return Refusal(400, "The request ended early").response()  # to a client that is gone
        except RedisError as error:
            what = "Redis refused" if isinstance(error, RedisRefused) else "Redis is not available"
            logger.warning("%s: %s", what, redact(str(error)))
            return Refusal(503, what).response()
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            return Refusal(500, "Internal error").response()


def _encoded_path(scope: Scope) -> str:
    """Return the path for the router: not decoded, because an id may hold a slash.

    All but unreserved characters are percent-encoded, also those that the client left unencoded.
    """
    path: str = scope["path"]
    raw_path: bytes = (scope.get("raw_path") or b"").partition(b"?")[0]
    if unquote_to_bytes(raw_path).decode(errors="replace") != path:
        raw_path = quote(path).encode()  # the server gives no raw path, or a middleware changed the path
    return "/".join(quote(unquote_to_bytes(segment), safe="") for segment in raw_path.split(b"/"))


async def _connect(service: QueueService) -> None:
    """Connect in the background, retrying until Redis is there; log the first failure only."""
    retry_delay = RetryDelay(_FIRST_RETRY_MS)
    has_failed = False
    while True:
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                await service.connect()
        except Exception as error:  # noqa: BLE001 - requests will get the same error, and its response
            if not has_failed:
                logger.warning("Redis is not available yet: %s", redact(_text(error)))
            has_failed = True
        else:
            return
        await retry_delay.wait(lambda: False)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
