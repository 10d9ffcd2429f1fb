"""The page's reads of the mirror, each time-limited: a slow or missing MongoDB is reported once.

There is one mirror, that of the page's first prefix.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from beeq.errors import one_line
from beeq.jobs import JOB_TYPES
from beeq.mirror.collection import MirrorUnavailable
from beeq.mirror.history import HistoryPage, MirroredJob, MirrorHistory
from beeq.supervision.fence import without_context

logger = logging.getLogger("beeq.web")

T = TypeVar("T")
#: How long after a failure MongoDB is not asked, and the failure is repeated.
_LEFT_ALONE_S = 5.0


@dataclass(frozen=True, slots=True)
class MirrorLook:
    """The result of a read.

    Attributes:
        jobs: the jobs found.
        problem: why it could not be asked, or "".
    """

    jobs: list[MirroredJob] = field(default_factory=list)
    problem: str = ""

    @property
    def job(self) -> MirroredJob | None:
        """The first of them."""
        return self.jobs[0] if self.jobs else None


class PageMirror:
    """The mirror of one page; ``history`` is None where there is none.

    ``problem`` says why it cannot be asked at all, as where PyMongo is missing.
    """

    def __init__(self, history: MirrorHistory | None, problem: str = "") -> None:
        self._history = history
        self._problem = problem
        self._failed_at_s: float | None = None
        self._failure = ""

    @property
    def is_there(self) -> bool:
        """Whether a mirror is configured."""
        return self._history is not None or bool(self._problem)

    def mirrors(self, queue_name: str) -> bool:
        """Return whether jobs of this queue have documents."""
        return self.is_there and queue_name in JOB_TYPES

    async def close(self) -> None:
        """Hang up."""
        if self._history is not None:
            await self._history.close()

    async def find(self, job_id: str, *queue_names: str) -> MirrorLook:
        """Return the job of that id in each of the queues, of all that have documents by default."""
        names = [name for name in queue_names or JOB_TYPES if self.mirrors(name)]
        if self._history is None or not names:
            return MirrorLook(problem=self._problem if names else "")
        if (problem := self._recent_failure()) is not None:
            return MirrorLook(problem=problem)
        try:
            jobs = await without_context(self._history.find(job_id, names))
        except MirrorUnavailable as error:
            return MirrorLook(problem=self._failed(error))
        self._failed_at_s = None
        return MirrorLook(jobs)

    async def search(
        self, text: str, *, shown: Callable[[MirroredJob], T], most: int, longest_s: float, before: str = ""
    ) -> tuple[HistoryPage[T] | None, str]:
        """Return the results of ``shown`` for jobs that have the text, and why the mirror failed, or "".

        Raises ValueError.
        """
        if self._history is None:
            return None, self._problem
        if (problem := self._recent_failure()) is not None:
            return None, problem
        try:
            page = await without_context(
                self._history.search(text, shown=shown, most=most, longest_s=longest_s, before=before)
            )
        except MirrorUnavailable as error:
            # A made-up place may be refused: that does not mean that MongoDB is away.
            return None, one_line(str(error)) if before else self._failed(error)
        self._failed_at_s = None
        return page, ""

    async def ping(self) -> tuple[float, str]:
        """Return in how many ms MongoDB answers, and why it does not, or ""."""
        if self._history is None:
            return 0, self._problem
        if (problem := self._recent_failure()) is not None:
            return 0, problem
        begun_s = time.monotonic()
        try:
            await without_context(self._history.ping())
        except MirrorUnavailable as error:
            return 0, self._failed(error)
        self._failed_at_s = None
        return (time.monotonic() - begun_s) * 1000, ""

    def _recent_failure(self) -> str | None:
        failed_at_s = self._failed_at_s
        is_recent = failed_at_s is not None and time.monotonic() - failed_at_s < _LEFT_ALONE_S
        return self._failure if is_recent else None

    def _failed(self, error: MirrorUnavailable) -> str:
        if self._failed_at_s is None:
            logger.warning("the page cannot ask the mirror: %s", error)
        self._failed_at_s, self._failure = time.monotonic(), one_line(str(error))
        return self._failure


def page_mirror(url: str | None, id_type: str) -> PageMirror:
    """Return the mirror at a URL; raises ValueError if that, or the type of project ids, is invalid."""
    if url is None:
        return PageMirror(None)
    try:
        return PageMirror(MirrorHistory(url, id_type=id_type))
    except ImportError as error:
        return PageMirror(None, str(error))
