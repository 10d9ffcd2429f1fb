"""The page as an ASGI application: access, dispatch to screens, and the response to each error.

Every request passes ``Visitors`` before its path is read. Every change is a POST by a visitor who may act,
with the session's form token; this is checked here only.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from beeq.environment import library_redis_url, mongo_project_id, mongo_url
from beeq.errors import QueueClosed, RedisError, RedisRefused, line_of, one_line
from beeq.processors.base import media_projects
from beeq.redis.urls import redact
from beeq.settings import Settings
from beeq.web import access, bounds
from beeq.web.bodies import RequestBody, send_response
from beeq.web.bounds import HeldBytes
from beeq.web.page import rendering
from beeq.web.page.addresses import Addresses, text_of_segment
from beeq.web.page.charts.histories import Histories
from beeq.web.page.failures import Failures
from beeq.web.page.live import MOST_LISTENERS, Live
from beeq.web.page.look import Parts, ScreenRequest
from beeq.web.page.made.files import MadeFiles
from beeq.web.page.runs import BulkRuns
from beeq.web.page.screens import (
    acts,
    checkup,
    events,
    failures,
    files,
    job,
    login,
    overview,
    queue,
    search,
    system,
    workers,
)
from beeq.web.page.searches import Searches
from beeq.web.page.sources.active_jobs import ActiveJobs
from beeq.web.page.sources.checkups import CheckUps
from beeq.web.page.sources.mirrored import PageMirror, page_mirror
from beeq.web.page.store import QueueStore
from beeq.web.page.visitors import Auth, Visitors, set_session
from beeq.web.paths import encoded_path, encoded_path_below
from beeq.web.policy import Policy, policy_from_environment
from beeq.web.responses import Refusal

logger = logging.getLogger("beeq.web")

Screen = Callable[[ScreenRequest], Awaitable[Response]]
_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 2_000
#: The longest that one screen may take.
_SCREEN_S = 30.0

#: Path → method → screen; a segment in braces matches any.
ROUTES: dict[tuple[str, ...], dict[str, Screen]] = {
    ("",): {"GET": overview.show},
    ("q", "{queue}"): {"GET": queue.show},
    ("q", "{queue}", "act"): {"POST": acts.act},
    ("q", "{queue}", "{state}"): {"GET": queue.show},
    ("q", "{queue}", "jobs", "{id}"): {"GET": job.show},
    ("q", "{queue}", "jobs", "{id}", "{part}"): {"GET": job.download},
    ("q", "{queue}", "jobs", "{id}", "files", "{number}"): {"GET": files.send},
    ("runs", "{run}"): {"GET": acts.show_run, "POST": acts.confirm_run},
    ("failures",): {"GET": failures.show},
    ("workers",): {"GET": workers.show},
    ("events",): {"GET": events.stream},
    ("system",): {"GET": system.show},
    ("system", "checkup"): {"GET": checkup.show},
    ("search",): {"GET": search.show},
    ("login",): {"GET": login.show, "POST": login.log_in},
    ("logout",): {"POST": login.log_out},
}
#: POSTs that need no right to act.
_FREE = frozenset({("login",), ("logout",)})


def dashboard(
    *,
    redis: Any = None,
    prefixes: Sequence[str] = ("bq",),
    base_path: str | None = None,
    auth: Auth | None = None,
    policy: Policy | None = None,
    media_root: str | Path | None = None,
    mongo: str | None = None,
    mongo_id_type: str | None = None,
) -> Dashboard:
    """Return the page as an ASGI application, to be served alone or mounted into another one.

    Args:
        redis: as of ``Queue``: a URL or a client. None: what the environment says, as for ``Queue``.
        prefixes: of the queues to show; addresses leave the first one out.
        base_path: where it is mounted, ``"/queues"``; None: what the server says (``root_path``).
        auth: returns the role of a request's sender (Starlette's ``Request``): ``"act"``, ``"look"`` or None;
            may be a coroutine function. Then the application that it is mounted in checks hosts and users.
        None: the tokens of ``policy``; without tokens only this machine is answered.
        policy: hosts, tokens, ``is_read_only``, ``hides_data``. None: the environment has it.
        media_root: where the files are that jobs of the built-in queues made, to be shown with these. None:
            ``BEEQ_MEDIA_ROOT``, and without it none are shown. ``BEEQ_MEDIA_PROJECTS`` counts as for workers.
        mongo: URL of the status mirror, whose documents are shown and searched; it is that of the first
            prefix. None: ``BEEQ_MONGO_URL`` or ``MONGODB_URI``, and without these there is none.
        mongo_id_type: how the mirror writes ``projectId``. None: ``BEEQ_MONGO_PROJECT_ID``, or ``auto``.

    Raises:
        ValueError, TypeError: a bad URL, prefix or path; the message names it.
    """
    return Dashboard(
        redis if redis is not None else library_redis_url(os.environ),
        prefixes=prefixes,
        base_path=base_path,
        auth=auth,
        policy=policy_from_environment(os.environ) if policy is None else policy,
        make_made=partial(MadeFiles, _media_root(media_root), media_projects(os.environ)),
        make_mirror=partial(
            page_mirror,
            mongo if mongo is not None else mongo_url(None, os.environ),
            mongo_id_type if mongo_id_type is not None else mongo_project_id(None, os.environ),
        ),
    )


def _media_root(given: str | Path | None) -> Path | None:
    root = given if given is not None else os.environ.get("BEEQ_MEDIA_ROOT", "")
    return Path(root).absolute() if root else None


class Dashboard:
    """An ASGI 3 application. ``dashboard`` documents the arguments.

    It connects when it is first asked. A server runs its lifespan; mounted into another application,
    ``running`` (or ``close``) ends its connections.
    """

    def __init__(
        self,
        redis: Any,
        *,
        prefixes: Sequence[str],
        base_path: str | None,
        auth: Auth | None,
        policy: Policy,
        make_made: Callable[[], MadeFiles],
        make_mirror: Callable[[], PageMirror],
    ) -> None:
        if isinstance(prefixes, str) or not prefixes:
            raise TypeError("prefixes must be a list of at least one prefix")
        if base_path is not None and base_path not in ("", "/") and not base_path.startswith("/"):
            raise ValueError("base_path must begin with a slash, as in /queues")
        self._redis = redis
        self._prefixes = tuple(dict.fromkeys(Settings(prefix=prefix).prefix for prefix in prefixes))
        self._base_path = None if base_path is None else base_path.rstrip("/")
        self._policy = policy
        self._visitors = Visitors(policy, auth)
        self._make_made = make_made
        self._make_mirror = make_mirror
        self._held_bytes = HeldBytes(bounds.MAX_HELD_BYTES)
        self._parts: Parts | None = None
        self._most_streams = MOST_LISTENERS
        self._make_store()  # raises for a bad URL now
        self._make_mirror()

    def __repr__(self) -> str:
        return "<beeq.web.dashboard>"

    def _make_store(self) -> QueueStore:
        return QueueStore(self._redis, self._prefixes)

    def _running(self) -> Parts:
        if self._parts is None:
            store = self._make_store()
            failures = Failures(store)
            self._parts = Parts(
                store,
                BulkRuns(store),
                failures,
                CheckUps(store),
                Live(store, most_listeners=self._most_streams, survey=lambda: failures.known),
                self._visitors,
                self._policy,
                self._make_made(),
                self._make_mirror(),
                Searches(),
                Histories(store, is_read_only=self._policy.is_read_only),
                ActiveJobs(store),
            )
            self._parts.histories.begin()
        return self._parts

    async def close(self) -> None:
        """Stop background work, and hang up; the next request connects again."""
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.live.close()
            await parts.runs.close()
            await parts.failures.close()
            await parts.active_jobs.close()
            await parts.searches.close()
            await parts.checkups.close()
            await parts.histories.close()
            parts.made.close()
            await parts.mirror.close()
            await parts.store.close()

    def begin(self) -> None:
        """Sample the queues' histories from now on, in the running loop, not from the first request on."""
        self._running()

    def bound_streams(self, count: int) -> None:
        """Limit how many pages may listen; called before the first request."""
        self._most_streams = min(count, MOST_LISTENERS)

    def end_streams(self) -> None:
        """End the pages' event streams, so that a stopping server need not wait for them."""
        if self._parts is not None:
            self._parts.live.end_streams()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Begin, and close at the end of the block."""
        self.begin()
        try:
            yield
        finally:
            await self.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or the lifespan."""
        if scope["type"] == "lifespan":
            await receive()
            self.begin()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self.close()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._serve(scope, receive, send)

    def knows(self, path: str) -> bool:
        """Return whether an encoded path is one of the page's."""
        return path.startswith("/static/") or _route_of(path) is not None

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        base, path = self._split(scope)
        respond = partial(self._response, Request({**scope, "path": path}), base, path)
        await send_response(scope, receive, send, self._held_bytes, respond)

    def _split(self, scope: Scope) -> tuple[str, str]:
        """Return where the page is mounted, and the path within it, both encoded."""
        base = self._base_path
        if base is None:
            base = scope.get("root_path", "").rstrip("/")
        encoded_base = encoded_path({"path": base, "raw_path": b""}) if base else ""
        return encoded_base, encoded_path_below(scope, encoded_base)

    async def _response(self, request: Request, base: str, path: str, body: RequestBody) -> Response:
        at = Addresses(base, self._prefixes, self._prefixes[0])
        try:
            async with asyncio.timeout(_SCREEN_S):
                return await self._answer(request, at, path, body)
        except Refusal as refusal:
            return _problem(at, refusal.status, refusal.error, refusal.headers)
        except ClientDisconnect:
            return _problem(at, 400, "The request ended early")
        except RedisRefused as refused:
            logger.warning("Redis refuses what the page asks: %s", redact(line_of(refused)))
            return _problem(at, 503, f"Redis refuses what was asked ({refused.code}): the log says more.")
        except (RedisError, QueueClosed, TimeoutError) as error:
            logger.warning("the page cannot ask Redis: %s", redact(line_of(error)))
            return _problem(
                at, 503, "Redis does not answer as it should: the log says why. Try again in a moment."
            )
        except Exception:
            logger.exception("%.20r %.200r failed", request.method, path)
            return _problem(at, 500, "Something went wrong: the log says what.")

    async def _answer(self, request: Request, at: Addresses, path: str, body: RequestBody) -> Response:
        self._visitors.check_sender(request.scope)
        body.check_framing()
        if path.startswith("/static/"):
            static = rendering.file(path.removeprefix("/static/"))
            if static is None or request.method not in ("GET", "HEAD"):
                raise Refusal(404, "There is nothing here")
            return static
        route = _route_of(path)
        if route is None:
            raise Refusal(404, "There is nothing here")
        methods = ROUTES[route]
        method = "GET" if request.method == "HEAD" else request.method
        if method not in methods:
            raise Refusal(405, "Method not allowed", headers={"allow": ", ".join(methods)})
        prefix = request.query_params.get("prefix", self._prefixes[0])
        if prefix not in self._prefixes:
            raise Refusal(404, "No queues of this prefix are shown here")
        visitor = await self._visitors.visitor(request)
        if visitor.role is None and route not in _FREE:
            return self._stranger(request, at, path)
        form = await _form(body) if method == "POST" else {}
        if method == "POST" and route not in _FREE:
            visitor.check_form(form.get("form_token", [""])[0])
        look = ScreenRequest(self._running(), at.within(prefix), request, visitor, _names(route, path), form)
        response = await methods[method](look)
        if visitor.is_new:
            set_session(response, request, at.base, visitor.cookie)
        return response

    def _stranger(self, request: Request, at: Addresses, path: str) -> Response:
        """Return the response for a visitor without rights: a redirect to the login, if there is one."""
        if not self._visitors.has_login:
            raise Refusal(403, "You may not look at this")
        if "authorization" in request.headers or request.method not in access.LOOKING:
            raise Refusal(401, "This needs a token", headers={"www-authenticate": "Bearer"})
        query = request.scope["query_string"].decode("latin-1")
        address = f"{at.base}{path}" + (f"?{query}" if query else "")
        if not at.is_own(address):
            address = at.to("/")
        if access.is_link_of_others(request.scope):
            # The browser withholds the cookie when another site's link leads here, and sends it from here.
            return rendering.html("again.html", address=address, at=at, version=rendering.VERSION)
        return rendering.redirect(at.to("/login", next=address))


def _route_of(path: str) -> tuple[str, ...] | None:
    segments = tuple(path[1:].split("/"))
    return next((route for route in ROUTES if _fits(route, segments)), None)


def _fits(route: tuple[str, ...], segments: tuple[str, ...]) -> bool:
    return len(route) == len(segments) and all(
        (bool(given) if wanted.startswith("{") else wanted == given)
        for wanted, given in zip(route, segments, strict=True)
    )


def _names(route: tuple[str, ...], path: str) -> dict[str, str]:
    try:
        return {
            wanted[1:-1]: text_of_segment(given)
            for wanted, given in zip(route, path[1:].split("/"), strict=True)
            if wanted.startswith("{")
        }
    except UnicodeDecodeError:
        raise Refusal(404, "There is nothing here") from None


async def _form(body: RequestBody) -> dict[str, list[str]]:
    content = await body.read(_FORM)
    try:
        pairs = parse_qsl(content.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Refusal(400, "The form cannot be read") from None
    form: dict[str, list[str]] = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    return form


def _problem(at: Addresses, status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    response = rendering.html(
        "problem.html", status, at=at, text=one_line(text), code=status, version=rendering.VERSION
    )
    response.headers.update(headers or {})
    return response
