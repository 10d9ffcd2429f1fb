"""Logging in and out."""

from starlette.responses import Response

from beeq.web.page import rendering
from beeq.web.page.look import ScreenRequest
from beeq.web.page.visitors import COOKIE, set_session
from beeq.web.responses import Refusal


async def show(look: ScreenRequest) -> Response:
    """Return the form, or redirect a visitor who is logged in."""
    wanted = look.asked("next")
    address = wanted if look.at.is_own(wanted) else look.at.to("/")
    if not look.parts.visitors.has_login or look.visitor.role is not None:
        return rendering.redirect(address)
    return look.screen("login.html", next=address, problem="")


async def log_in(look: ScreenRequest) -> Response:
    """Set the cookie for a visitor with a token."""
    wanted = look.sent("next")
    address = wanted if look.at.is_own(wanted) else look.at.to("/")
    if not look.parts.visitors.has_login:
        return rendering.redirect(look.at.to("/"))
    try:
        cookie = look.parts.visitors.log_in(look.request, look.sent("token"))
    except Refusal as refusal:
        response = look.screen("login.html", refusal.status, next=address, problem=refusal.error)
        response.headers.update(refusal.headers)
        return response
    response = rendering.redirect(address)
    set_session(response, look.request, look.at.base, cookie)
    return response


async def log_out(look: ScreenRequest) -> Response:
    """Delete the cookie."""
    response = rendering.redirect(look.at.to("/login" if look.parts.visitors.has_login else "/"))
    response.delete_cookie(COOKIE, path=f"{look.at.base}/")
    return response
