"""Visitors and their roles: by a token in the header, a cookie after the login, or the host application.

After a login the cookie holds the role and its end, signed with a key derived from the token: several
processes can check it, and a new token ends it. Without a login the cookie is random. Each form carries a
text derived from the cookie, which no other site can read.
"""

import hashlib
import hmac
import inspect
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from beeq.web import access
from beeq.web.access import Role
from beeq.web.policy import Policy, address_of
from beeq.web.responses import Refusal

#: Returns the role, in the application that the page is mounted in; may be a coroutine function.
Auth = Callable[[Request], Role | Awaitable[Role | None] | None]

COOKIE = "beeq_session"
SESSION_S = 7 * 86_400
#: How many logins may fail without a pause, and the longest pause.
_FREE_FAILURES = 3
_LONGEST_PAUSE_S = 60.0
_MOST_ADDRESSES = 2000
_NONCE = re.compile(r"[A-Za-z0-9_-]{20,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Visitor:
    """One request's sender.

    Attributes:
        role: what they may do; None: log in first.
        who: the same for the log.
        cookie: that of their session; "" for programs.
        is_new: whether the cookie has to be set.
        has_login: whether they may log out.
    """

    role: Role | None
    who: str
    cookie: str = ""
    is_new: bool = False
    has_login: bool = False

    @property
    def may_act(self) -> bool:
        """Whether they may change anything."""
        return self.role == "act"

    @property
    def form_token(self) -> str:
        """What each form of the session carries."""
        return hashlib.sha256(b"beeq form " + self.cookie.encode()).hexdigest() if self.cookie else ""

    def check_form(self, given: str) -> None:
        """Raise Refusal unless the sender may act, and the form is of their session."""
        if not self.may_act:
            raise Refusal(403, "You may look, and change nothing")
        if not self.cookie:
            return  # a program, with a header that no page can make a browser send
        is_ours = hmac.compare_digest(self.form_token.encode(), given.encode(errors="replace"))
        if self.is_new or not is_ours:
            raise Refusal(403, "This form is not of your session: open the page again, and repeat it")


class Visitors:
    """Recognises visitors, by a policy or by the host application."""

    def __init__(self, policy: Policy, auth: Auth | None) -> None:
        self._policy = policy
        self._auth = auth
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    @property
    def has_login(self) -> bool:
        """Whether there is a token to log in with."""
        return self._auth is None and self._policy.needs_token

    def check_sender(self, scope: Scope) -> None:
        """Raise Refusal unless the request may come to this page at all."""
        if self._auth is None:
            access.check_sender(scope, self._policy, may_be_linked=True)
        else:
            access.check_page(scope, self._policy)

    async def visitor(self, request: Request) -> Visitor:
        """Return who sends the request."""
        if self._auth is not None:
            return self._with_cookie(request, await self._role_of_host(request), "the application's user")
        if "authorization" in request.headers and self._policy.needs_token:
            role = access.role_by_bearer(request.scope, self._policy)
            return Visitor(role, f"a program that may {role}")
        if not self._policy.needs_token:
            return self._with_cookie(
                request, "look" if self._policy.is_read_only else "act", "somebody on this machine"
            )
        cookie = request.cookies.get(COOKIE, "")
        role = self._role_of_cookie(cookie)
        return Visitor(role, f"the holder of a token that may {role}", cookie if role else "", has_login=True)

    async def _role_of_host(self, request: Request) -> Role | None:
        assert self._auth is not None  # noqa: S101 - the caller has looked
        role = self._auth(request)
        if inspect.isawaitable(role):
            role = await role
        if role not in ("act", "look"):
            return None
        return "look" if self._policy.is_read_only else role

    def _with_cookie(self, request: Request, role: Role | None, who: str) -> Visitor:
        cookie = request.cookies.get(COOKIE, "")
        if _NONCE.fullmatch(cookie):
            return Visitor(role, who, cookie)
        return Visitor(role, who, secrets.token_urlsafe(32), is_new=True)

    # Logging in.

    def log_in(self, request: Request, token: str) -> str:
        """Return the cookie for the holder of a token.

        Raises Refusal: 403, it is not one; 429, too many from this address have not been.
        """
        address, now_s = group_of(request), time.monotonic()
        failures, paused_until_s = self._failures.get(address, (0, 0.0))
        if now_s < paused_until_s:
            wait_s = int(paused_until_s - now_s) + 1
            raise Refusal(
                429,
                f"Too many wrong tokens: try again in {wait_s} seconds",
                headers={"retry-after": str(wait_s)},
            )
        role = access.role_of(token.strip().encode(errors="replace"), self._policy)
        if role is None:
            pause_s = (
                min(2.0 ** (failures - _FREE_FAILURES), _LONGEST_PAUSE_S) if failures >= _FREE_FAILURES else 0
            )
            self._failures[address] = (min(failures + 1, 30), now_s + pause_s)
            self._failures.move_to_end(address)
            while len(self._failures) > _MOST_ADDRESSES:
                self._failures.popitem(last=False)
            raise Refusal(403, "That is not the token")
        self._failures.pop(address, None)
        plain = f"{role}.{int(time.time()) + SESSION_S}.{secrets.token_urlsafe(16)}"
        return f"{plain}.{self._signature(role, plain)}"

    def _role_of_cookie(self, cookie: str) -> Role | None:
        plain, _, signature = cookie.rpartition(".")
        name, _, rest = plain.partition(".")
        expires = rest.partition(".")[0]
        for role in ("act", "look"):
            if name == role and (role == "look" or not self._policy.is_read_only):
                expected = self._signature(role, plain)
                if not expected or not hmac.compare_digest(
                    expected.encode(), signature.encode(errors="replace")
                ):
                    return None
                return role if int(expires) > time.time() else None
        return None

    def _signature(self, role: str, plain: str) -> str:
        """Return a signature that only a holder of the tokens can make; "" without such a token."""
        token = self._policy.token if role == "act" else self._policy.read_token
        if token is None and role == "look" and self._policy.is_read_only:
            token = self._policy.token
        if token is None:
            return ""
        key = hashlib.sha256(b"beeq session " + token.encode()).digest()
        return hmac.new(key, plain.encode(errors="replace"), hashlib.sha256).hexdigest()


def set_session(response: Response, request: Request, base: str, cookie: str) -> None:
    """Have the browser keep the session's cookie, for the page below the path ``base`` alone."""
    is_secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=SESSION_S,
        path=f"{base}/",
        httponly=True,
        samesite="strict",
        secure=is_secure,
    )


def group_of(request: Request) -> str:
    """Return the sender's address; of IPv6 the network, of which one sender has all addresses."""
    text = request.client.host if request.client else ""
    address = address_of(text)
    return ":".join(address.exploded.split(":")[:4]) if address is not None and address.version == 6 else text  # noqa: PLR2004 - IPv6
