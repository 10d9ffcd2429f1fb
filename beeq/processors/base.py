"""The base of all processors: settings, the check of a job's fields, and progress.

A processor is a handler for one built-in queue. All it sees of the queue is the job that it runs.
"""

import asyncio
import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar
from urllib.parse import urlsplit

from beeq.errors import BeeqError, Discard, line_of
from beeq.job import RunningJob
from beeq.jobs import BaseJob, InvalidJob, validate
from beeq.media.limits import MediaLimits
from beeq.media.paths import safe_name
from beeq.protocol.options import retries_left

logger = logging.getLogger(__name__)

JobData = TypeVar("JobData", bound=BaseJob)
_Choice = TypeVar("_Choice", bound=str)
#: Whether each project has a folder of its own below the media root.
MediaProjects = Literal["shared", "separate"]

DEFAULT_POLL_INTERVAL_MS = 5000
#: The most retries that a job of a built-in queue has left: a record with more could repeat its request
#: without end.
MAX_RETRIES = 100
#: How long the last report may take when Redis does not answer.
_LAST_REPORT_S = 5.0


@dataclass(frozen=True, slots=True)
class ProcessorSettings:
    """The settings of all processors; read from the environment only by ``from_environment``.

    Attributes:
        media_root: the folder of all media files; the current one by default.
        media_limits: what one run of ffmpeg may cost, by jobs of any queue; each has a setting of its own.
        media_projects: ``separate`` keeps each job in a folder of its ``projectId`` below the media root.
        media_url: base URL of a remote media service that replaces ffmpeg; it may hold a password.
        webhook_secret: ``whsec_`` and base64, or several of these; the signing keys derive from it.
            Parsed by the webhook processor, as are the next three.
        webhook_keys: ``derived``, a key for each endpoint, or ``shared``, the secret itself for all.
        webhook_signatures: ``v1``, ``v1a`` (ed25519), or both.
        webhook_endpoint_keys: a JSON object: URL → key, or list of keys, of that endpoint.
        webhook_allow_hosts: comma list of hosts that may be called although their address is private.
        webhook_ports: comma list of ports and ranges that may be called, or ``any``; None: 80, 443 and those
            from 1024 on.
        webhook_deny_nets: comma list of networks (CIDR) that are not called, public or allowed by name.
        webhook_breaker_failures: so many failures in a row, and a receiver is left alone; 0: never.
        webhook_slow_places: how many places slow attempts at one host may hold; None: half of the worker's.
        webhook_headers: a JSON object: origin → object of headers for its receivers, such as authentication.
        ai_base_url: of an OpenAI-compatible API, with its ``/v1``. Without it no AI job can run.
        ai_api_key: sent to that API only.
        ai_text_model, ai_image_model, ai_video_model: the models of jobs that name none.
        ai_max_text_bytes: what a model may write, in bytes; a longer text fails the job.
        ai_max_scenes: the most scenes of a script.
        ai_poll_interval_ms: the time between two polls of a video that is being made.
        ai_headers: a JSON object of further headers for that API.
        ai_proxy: URL of an HTTP proxy for requests to that API, and for nothing else.
        ai_allow_hosts: comma list of hosts that pictures and moved files may be fetched from although their
            address is private.
        ai_video_reference: ``upload`` sends the picture a video begins with, ``url`` its URL.
    """

    media_root: Path = field(default_factory=Path.cwd)
    media_limits: MediaLimits = field(default_factory=MediaLimits)
    media_projects: MediaProjects = "shared"
    media_url: str | None = field(default=None, repr=False)
    webhook_secret: str | None = field(default=None, repr=False)
    webhook_keys: str | None = None
    webhook_signatures: str | None = None
    webhook_endpoint_keys: str | None = field(default=None, repr=False)
    webhook_allow_hosts: str = ""
    webhook_ports: str | None = None
    webhook_deny_nets: str = ""
    webhook_breaker_failures: str | None = None
    webhook_slow_places: str | None = None
    webhook_headers: str | None = field(default=None, repr=False)
    ai_base_url: str | None = field(default=None, repr=False)
    ai_api_key: str | None = field(default=None, repr=False)
    ai_text_model: str | None = None
    ai_image_model: str | None = None
    ai_video_model: str | None = None
    ai_max_text_bytes: int = 1_000_000
    ai_max_scenes: int = 1000
    ai_poll_interval_ms: int = DEFAULT_POLL_INTERVAL_MS
    ai_headers: str | None = field(default=None, repr=False)
    ai_proxy: str | None = field(default=None, repr=False)
    ai_allow_hosts: str = ""
    ai_video_reference: Literal["upload", "url"] = "upload"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read ``BEEQ_MEDIA_…``, ``BEEQ_WEBHOOK_…`` and ``BEEQ_AI_…``: each attribute's name in capitals.

        Raises ValueError if a value is invalid; the message names the variable, and holds no secret.
        """
        root = Path(environ.get("BEEQ_MEDIA_ROOT", "."))
        if "BEEQ_MEDIA_ROOT" in environ and not environ["BEEQ_MEDIA_ROOT"]:
            raise ValueError("BEEQ_MEDIA_ROOT must not be empty")
        if not root.is_dir():
            raise ValueError(f"BEEQ_MEDIA_ROOT is not a folder: {str(root)!r}")
        return cls(
            media_root=root.absolute(),
            media_limits=MediaLimits.from_environment(environ),
            media_projects=media_projects(environ),
            media_url=_service_url("BEEQ_MEDIA_URL", environ),
            webhook_secret=environ.get("BEEQ_WEBHOOK_SECRET"),
            webhook_keys=environ.get("BEEQ_WEBHOOK_KEYS"),
            webhook_signatures=environ.get("BEEQ_WEBHOOK_SIGNATURES"),
            webhook_endpoint_keys=environ.get("BEEQ_WEBHOOK_ENDPOINT_KEYS") or None,
            webhook_allow_hosts=environ.get("BEEQ_WEBHOOK_ALLOW_HOSTS", ""),
            webhook_ports=environ.get("BEEQ_WEBHOOK_PORTS") or None,
            webhook_deny_nets=environ.get("BEEQ_WEBHOOK_DENY_NETS", ""),
            webhook_breaker_failures=environ.get("BEEQ_WEBHOOK_BREAKER_FAILURES") or None,
            webhook_slow_places=environ.get("BEEQ_WEBHOOK_SLOW_PLACES") or None,
            webhook_headers=environ.get("BEEQ_WEBHOOK_HEADERS") or None,
            ai_base_url=_service_url("BEEQ_AI_BASE_URL", environ, with_query=True),
            ai_api_key=environ.get("BEEQ_AI_API_KEY") or None,
            ai_text_model=environ.get("BEEQ_AI_TEXT_MODEL") or None,
            ai_image_model=environ.get("BEEQ_AI_IMAGE_MODEL") or None,
            ai_video_model=environ.get("BEEQ_AI_VIDEO_MODEL") or None,
            ai_max_text_bytes=_whole("BEEQ_AI_MAX_TEXT_BYTES", environ, 1_000_000, "bytes"),
            ai_max_scenes=_whole("BEEQ_AI_MAX_SCENES", environ, 1000, "scenes"),
            ai_poll_interval_ms=_whole(
                "BEEQ_AI_POLL_INTERVAL", environ, DEFAULT_POLL_INTERVAL_MS, "milliseconds"
            ),
            ai_headers=environ.get("BEEQ_AI_HEADERS") or None,
            ai_proxy=environ.get("BEEQ_AI_PROXY") or None,
            ai_allow_hosts=environ.get("BEEQ_AI_ALLOW_HOSTS", ""),
            ai_video_reference=_choice("BEEQ_AI_VIDEO_REFERENCE", environ, "upload", "url"),
        )


def media_projects(environ: Mapping[str, str]) -> MediaProjects:
    """Return ``BEEQ_MEDIA_PROJECTS``; raises a ValueError, which names it, if it is invalid."""
    return _choice("BEEQ_MEDIA_PROJECTS", environ, "shared", "separate")


def _whole(variable: str, environ: Mapping[str, str], default: int, unit: str) -> int:
    text = environ.get(variable)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) == 0:
        raise ValueError(f"{variable} must be a whole number of {unit} above 0")
    return int(text)


def _choice(variable: str, environ: Mapping[str, str], default: _Choice, other: _Choice) -> _Choice:
    given = environ.get(variable) or default
    for choice in (default, other):
        if given == choice:
            return choice
    raise ValueError(f"{variable} must be {default} or {other}")


def _service_url(variable: str, environ: Mapping[str, str], *, with_query: bool = False) -> str | None:
    url = environ.get(variable)
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or (parts.query and not with_query) or parts.fragment:
        # The URL itself may hold a password.
        without = "fragment" if with_query else "query"
        raise ValueError(f"{variable} must be an http or https URL with a host, and no {without}")
    return url


def project_folder(settings: ProcessorSettings, data: BaseJob) -> str:
    """Return the folder of a job's project below the media root; ``""`` where projects share the root."""
    if settings.media_projects == "shared":
        return ""
    if data.project_id is None:
        raise Discard("the job has no projectId, which BEEQ_MEDIA_PROJECTS=separate asks for")
    return safe_name(str(data.project_id))


class Processor(ABC, Generic[JobData]):
    """A handler for the jobs of one built-in queue.

    Subclasses name their queue and do the work in ``perform``. A job with invalid fields is discarded
    before that: it fails at once, uses up no retries, and its error names the faults.
    """

    queue_name: ClassVar[str]

    async def __call__(self, job: RunningJob) -> Any:
        """Run one job and return its result, a JSON value; raises Discard if it can never succeed."""
        try:
            data: Any = validate(self.queue_name, job.data)
        except InvalidJob as error:
            raise Discard(f"bad job: {error}") from None
        if retries_left(job.options) > MAX_RETRIES:
            logger.info("job %.200r: its retries are cut to %d", job.id, MAX_RETRIES)
            job.options["retries"] = MAX_RETRIES
        return await self.perform(job, data)

    @abstractmethod
    async def perform(self, job: RunningJob, data: JobData) -> Any:
        """Do the work of one job whose fields have been checked."""

    async def close(self) -> None:
        """Close the processor's connections; called once, after the last job."""


class Progress:
    """Reports a job's progress, 0 to 100, never falling, by an ``async with`` block.

    ``reach`` only stores the percentage; a task of this object publishes it, at most once for each
    percent, so the work never waits for Redis. Leaving the block without an error reports 100. A failed
    report is logged, and the work goes on.
    """

    def __init__(self, job: RunningJob) -> None:
        self._job = job
        self._reached = 0  # set by ``reach``, read by the sender
        self._sent = -1  # the sender's own
        self._moved = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._moved.set()
        self._sender = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        sender, self._sender = self._sender, None
        if sender is None:
            return
        try:
            if error_type is None:
                self._note(100)
                await asyncio.wait({sender}, timeout=_LAST_REPORT_S)
        finally:
            sender.cancel()
            (fault,) = await asyncio.gather(sender, return_exceptions=True)
        if error_type is None and isinstance(fault, Exception):
            raise fault

    def reach(self, percent: float) -> None:
        """Store that ``percent`` of the work is done, at most 99: leaving the block reports 100."""
        self._note(min(99, int(percent)))

    def _note(self, percent: int) -> None:
        if percent > self._reached:
            self._reached = percent
            self._moved.set()

    async def _send(self) -> None:
        while self._sent < 100:  # noqa: PLR2004 - percent
            await self._moved.wait()
            self._moved.clear()
            percent = self._reached
            try:
                await self._job.report_progress(percent)
            except BeeqError as error:
                logger.warning(
                    "job %.200r: progress %d%% not reported: %s", self._job.id, percent, line_of(error)
                )
            self._sent = percent
