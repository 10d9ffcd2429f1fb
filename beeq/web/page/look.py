"""One request for a screen: its subject, its visitor, and the page's parts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response

from beeq.web.page import rendering, words
from beeq.web.page.addresses import Addresses
from beeq.web.page.charts.histories import Histories
from beeq.web.page.failures import Failures
from beeq.web.page.live import Live
from beeq.web.page.made.files import MadeFiles
from beeq.web.page.runs import BulkRuns
from beeq.web.page.searches import Searches
from beeq.web.page.sources.active_jobs import ActiveJobs
from beeq.web.page.sources.checkups import CheckUps
from beeq.web.page.sources.mirrored import PageMirror
from beeq.web.page.store import QueueStore
from beeq.web.page.visitors import Visitor, Visitors, group_of
from beeq.web.policy import Policy

#: The cookie that carries the message on an action to the next screen, once.
SAID_COOKIE = "beeq_said"
_SAID_S = 20
_LONGEST_SAID = 500
_LONGEST_QUERY = 2000
_MOST_DIGITS = 6
_RUNS_OF_BLANKS = re.compile(r"\s+")
#: Certainly a type's name, not a word of a message.
_ERROR_TYPE = re.compile(r"(?:[A-Za-z_]\w*\.){0,8}[A-Z]\w*(?:Error|Exception|Timeout)", re.ASCII)
_LONGEST_TYPE = 100


@dataclass(frozen=True, slots=True)
class Parts:
    """What all requests of one page share while it runs."""

    store: QueueStore
    runs: BulkRuns
    failures: Failures
    checkups: CheckUps
    live: Live
    visitors: Visitors
    policy: Policy
    made: MadeFiles
    mirror: PageMirror
    searches: Searches
    histories: Histories
    active_jobs: ActiveJobs


@dataclass(frozen=True, slots=True)
class ScreenRequest:
    """One request.

    Attributes:
        names: the parameters of the path, decoded.
        form: the fields of a POST; those that may be there several times are lists.
    """

    parts: Parts
    at: Addresses
    request: Request
    visitor: Visitor
    names: Mapping[str, str]
    form: Mapping[str, list[str]]

    @property
    def prefix(self) -> str:
        """The current prefix."""
        return self.at.prefix

    @property
    def is_mirrored(self) -> bool:
        """Whether the mirror is that of the current prefix."""
        return self.prefix == self.at.prefixes[0]

    @property
    def hides_data(self) -> bool:
        """Whether values of jobs are not shown."""
        return self.parts.policy.hides_data

    def asked(self, name: str) -> str:
        """Return a parameter of the query, in one line and not too long; "" if it is not there."""
        query: QueryParams = self.request.query_params
        return query.get(name, "")[:_LONGEST_QUERY]

    @property
    def reader(self) -> str:
        """The visitor's identity: by their session, or else by their address."""
        if self.visitor.cookie and not self.visitor.is_new:
            return self.visitor.cookie
        return f"{self.visitor.who} at {group_of(self.request)}"

    @property
    def page(self) -> int:
        """Which page of a list is asked for; the first is 1."""
        text = self.asked("page")
        is_number = text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS
        return max(1, int(text)) if is_number else 1

    def sent(self, name: str) -> str:
        """Return a field of the form; "" if it is not there."""
        return self.form.get(name, [""])[0]

    def data(self, value: Any) -> Any:
        """Return a job's value as it may be shown."""
        return words.shape(value) if self.hides_data else value

    def error(self, text: str) -> str:
        """Return an error's line as it may be shown: where values are hidden, its type alone.

        An error of Node, or one that has no type before it, may begin with any word: that is hidden, too.
        """
        if not self.hides_data or not text:
            return text
        kind = text.partition("\n")[0].partition(":")[0].strip()
        is_type = len(kind) <= _LONGEST_TYPE and _ERROR_TYPE.fullmatch(kind) is not None
        return f"{kind}: (hidden)" if is_type else "(hidden)"

    def screen(self, template: str, status: int = 200, /, **values: Any) -> Response:
        """Return a screen."""
        said = unquote(self.request.cookies.get(SAID_COOKIE, ""))[:_LONGEST_SAID]
        response = rendering.html(
            template,
            status,
            at=self.at,
            look=self,
            visitor=self.visitor,
            said=said,
            version=rendering.VERSION,
            **values,
        )
        if said:
            response.delete_cookie(SAID_COOKIE, path=f"{self.at.base}/")
        return response

    def back(self, said: str, address: str = "") -> Response:
        """Redirect to an address of the page, by default the form's; show there what was done."""
        wanted = address or self.sent("next")
        response = rendering.redirect(wanted if self.at.is_own(wanted) else self.at.to("/"))
        line = _RUNS_OF_BLANKS.sub(" ", said)[:_LONGEST_SAID]
        response.set_cookie(
            SAID_COOKIE,
            quote(line, safe=" ", errors="replace").replace(" ", "%20"),
            max_age=_SAID_S,
            path=f"{self.at.base}/",
            httponly=True,
            samesite="strict",
        )
        return response

    @property
    def here(self) -> str:
        """The address of this screen, for forms that lead back to it."""
        query = self.request.scope["query_string"].decode("latin-1")
        path = self.request.scope["path"]
        address = f"{self.at.base}{path}" + (f"?{query}" if query else "")
        return address if self.at.is_own(address) else self.at.to("/")
