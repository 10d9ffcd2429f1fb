"""The ASGI application: its lifespan, the guard, the dispatch to routes, and the response to each error.

Every request passes the guard (``access``) before its path is read, and needs the token unless its route says
otherwise, so new routes are guarded by default. No response repeats an error's own text, which goes to the
log. No other origin is allowed (no CORS).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from urllib.parse import quote

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from beeq.client.closing import end_tasks
from beeq.environment import library_redis_url, mongo_project_id, mongo_url
from beeq.environment import wait_replicas as configured_replicas
from beeq.errors import NotReplicated, RedisError, RedisRefused
from beeq.jobs import InvalidJob
from beeq.redis.retry_delay import RetryDelay
from beeq.redis.urls import redact
from beeq.service import QueueService
from beeq.telemetry.tally import QueueTally
from beeq.web import access, bounds
from beeq.web.bodies import RequestBody, send_response
from beeq.web.bounds import HeldBytes
from beeq.web.page.application import Dashboard
from beeq.web.paths import encoded_path
from beeq.web.policy import Policy, policy_from_environment
from beeq.web.responses import Refusal
from beeq.web.routes import REDIS_TIMEOUT_S, ROUTES, WITHOUT_TOKEN, Handler, Running

logger = logging.getLogger("beeq.web")

#: Returns the response to a request, or raises.
Respond = Callable[[Scope, RequestBody], Awaitable[Response]]

#: The delay after the first failure to connect; it doubles.
_FIRST_RETRY_MS = 500


def service_for(
    url: str,
    prefix: str,
    mongo_url: str | None = None,
    *,
    mongo_project_id: str = "auto",
    wait_replicas: int = 0,
) -> QueueService:
    """Return a service that only enqueues and queries: it gets no events and activates no delayed jobs.

    Raises:
        ValueError: the URL or prefix is invalid; the message says which, and repeats no URL.
        ImportError: there is a Mongo URL, but PyMongo is not installed.
    """
    return QueueService(
        redis=url,
        mongo_url=mongo_url,
        mongo_project_id=mongo_project_id,
        prefix=prefix,
        get_events=False,
        store_jobs=False,
        ensure_scripts=False,
        activate_delayed_jobs=False,
        wait_replicas=wait_replicas,
    )


def service_from_environment(environ: Mapping[str, str]) -> QueueService:
    """Return the service that the environment configures.

    That is Redis and MongoDB, ``BEEQ_MONGO_PROJECT_ID``, ``BEEQ_PREFIX`` and ``BEEQ_WAIT_REPLICAS``.

    Raises:
        ValueError: a value is empty or invalid; the message names it.
        ImportError: there is a Mongo URL, but PyMongo is not installed.
    """
    mirror_url = mongo_url(None, environ)
    url, prefix = library_redis_url(environ), environ.get("BEEQ_PREFIX", "bq")
    return service_for(
        url,
        prefix,
        mirror_url,
        mongo_project_id=mongo_project_id(None, environ),
        wait_replicas=configured_replicas(environ),
    )


def create_app(
    make_service: Callable[[], QueueService],
    make_policy: Callable[[], Policy] | None = None,
    make_page: Callable[[], Dashboard] | None = None,
) -> Application:
    """Return an application.

    Args:
        make_service: called once at each start; the application connects and closes what it returns.
            Its exceptions fail the start.
        make_policy: called before it. None: the environment has the policy, as it has for ``app``.
        make_page: called after it; returns the page to serve beside the routes, see ``dashboard``. None:
            none.
    """
    policy = make_policy or (lambda: policy_from_environment(os.environ))
    return Application(make_service, policy, make_page)


class Application:
    """An ASGI 3 application. A server runs its lifespan; mounted into another, it needs ``running``."""

    def __init__(
        self,
        make_service: Callable[[], QueueService],
        make_policy: Callable[[], Policy],
        make_page: Callable[[], Dashboard] | None = None,
    ) -> None:
        self._make_service = make_service
        self._make_policy = make_policy
        self._make_page = make_page
        self._page: Dashboard | None = None  # while it runs, if there is one
        self._most_streams: int | None = None
        self._held_bytes = HeldBytes(bounds.MAX_HELD_BYTES)
        self._running: Running | None = None  # set while it runs
        routes = [Route(path, self._resource(path, handlers)) for path, handlers in ROUTES.items()]
        self._router = Router(routes, redirect_slashes=False, default=self._endpoint(_unknown))

    def __repr__(self) -> str:
        return "<beeq.web.Application>"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Accept requests. While Redis is not available they are answered with 503.

        Raises:
            RuntimeError: it runs already. Further, what ``make_service`` raises.
        """
        if self._running is not None:
            raise RuntimeError("the application runs already")
        policy = self._make_policy()
        service = self._make_service()
        self._page = self._make_page() if self._make_page is not None else None
        if self._page is not None and self._most_streams is not None:
            self._page.bound_streams(self._most_streams)
        if self._page is not None:
            self._page.begin()
        self._running = Running(service, policy)
        for queue in service.queues.values():
            queue.telemetry.tally = QueueTally()
        # Connect now, so that the log shows a failure early, and the first request need not wait.
        connecting = asyncio.create_task(_connect(service))
        try:
            yield
        finally:
            self._running = None
            page, self._page = self._page, None
            if page is not None:
                await page.close()
            await end_tasks(connecting)
            await service.close()

    def bound_streams(self, count: int) -> None:
        """Limit the number of endless responses; called before it runs."""
        self._most_streams = count

    def end_streams(self) -> None:
        """End the endless responses: the server is about to stop."""
        if self._page is not None:
            self._page.end_streams()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(receive, send)
        elif scope["type"] == "http":
            root_path = quote(scope.get("root_path", ""))
            encoded = {**scope, "path": encoded_path(scope), "root_path": root_path}
            if self._page is not None and self._page.knows(encoded["path"]):
                await self._page(scope, receive, send)
                return
            await self._guarded(encoded)(encoded, receive, send)
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

    def _guarded(self, scope: Scope) -> ASGIApp:
        """Return what serves the request: the router, or the refusal of its sender."""
        try:
            if self._running is not None:
                access.check_sender(scope, self._running.policy)
        except Refusal as refusal:
            return self._endpoint(partial(_refuse, refusal), needs_token=False)
        return self._router

    def _endpoint(self, respond: Respond, *, needs_token: bool = True) -> _Endpoint:
        async def respond_to_holder(scope: Scope, body: RequestBody) -> Response:
            if needs_token and self._running is not None:
                access.check_token(scope, self._running.policy)
            body.check_framing()
            return await respond(scope, body)

        return _Endpoint(respond_to_holder, self._held_bytes)

    def _resource(self, path: str, handlers: Mapping[str, Handler]) -> _Endpoint:
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
            if self._running is None:
                raise RuntimeError("the application does not run: its lifespan has not started, or has ended")
            return await handler(self._running, body, scope["path_params"])

        return self._endpoint(respond, needs_token=path not in WITHOUT_TOKEN)


async def _unknown(_scope: Scope, _body: RequestBody) -> Response:
    raise Refusal(404, "Not found")


async def _refuse(refusal: Refusal, _scope: Scope, _body: RequestBody) -> Response:
    raise refusal


class _Endpoint:
    """Sends the response that ``respond`` returns, or the one for the error that it raises."""

    def __init__(self, respond: Respond, held_bytes: HeldBytes) -> None:
        self._respond = respond
        self._held_bytes = held_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await send_response(scope, receive, send, self._held_bytes, partial(self._response, scope))

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
            return _unavailable(error).response()
        except Exception:
            logger.exception("%.20r %.200r failed", scope["method"], scope["path"])
            return Refusal(500, "Internal error").response()


def _unavailable(error: RedisError) -> Refusal:
    """Log the error without untrusted text; return the refusal for the client."""
    if isinstance(error, NotReplicated):
        logger.warning("a job is not confirmed by replicas yet: %s", redact(error.reason))
        return Refusal(503, f"Job {error.job_id} is not confirmed by replicas yet")
    what = "Redis refused" if isinstance(error, RedisRefused) else "Redis is not available"
    logger.warning("%s: %s", what, redact(str(error)))
    return Refusal(503, what)


async def _connect(service: QueueService) -> None:
    """Connect in the background, retrying until Redis answers; log the first failure only."""
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
        await retry_delay.wait()


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__
