"""Reads the mirror for a person: the document of one job, and those with a text, the newest first.

A text may be anywhere in a job's data, so no index helps. Documents are read in pages, in the order of their
``_id``, for as long as one look may take; the next look goes on from there. A page is searched as raw bytes:
only documents that may contain the text are decoded.
"""

import asyncio
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from beeq.job_status import mirrored_name
from beeq.jobs import JOB_TYPES
from beeq.mirror.collection import MirrorUnavailable, StatusCollection
from beeq.mirror.documents import shared_id
from beeq.mirror.id_order import IdPlace
from beeq.protocol.codec import dumps_shown

T = TypeVar("T")
#: The longest wait for one document.
LOOK_S = 2.0
_PAGE = 500
#: A page is not begun with less time than this.
_SHORTEST_S = 0.1
#: So much of the documents is read by one look.
_MOST_BYTES = 64_000_000
#: A larger document is not decoded by a search: the bytes alone say whether it has the text.
_LARGEST_DECODED = 256_000
#: Likewise when one is shown: of a larger one only the small fields.
LARGEST_SHOWN = 4_000_000
#: The page has no address for a job with a longer id.
_LONGEST_ID = 10_000
#: Other tasks get a turn after so many documents.
_TURN = 50
_LETTERS = re.compile("[a-z]+")
_SEARCHED = ("jobData", "result", "error")
_QUEUES = {mirrored_name(name): name for name in JOB_TYPES}


@dataclass(frozen=True, slots=True)
class MirroredJob:
    """A job as the mirror has it.

    Attributes:
        queue_name, job_id: as in Redis.
        document: as readers get it.
        stored: as MongoDB has it, with beeq's own fields.
        size: in bytes.
        is_whole: whether all fields are there; of a large one only the small ones are.
    """

    queue_name: str
    job_id: str
    document: dict[str, Any]
    stored: dict[str, Any]
    size: int
    is_whole: bool


@dataclass(slots=True)
class HistoryPage(Generic[T]):
    """What one look through the documents has found.

    Attributes:
        found: the result of ``shown`` for each job, the newest first.
        looked_at: how many documents were read.
        back_to: when the last of them was created, if it says so.
        before: where the next look goes on; "" at the end, and after an ``_id`` that fits no address.
        is_whole: whether it came to the end.
    """

    found: list[T]
    looked_at: int = 0
    back_to: datetime | None = None
    before: str = ""
    is_whole: bool = False


class MirrorHistory:
    """The documents of the built-in queues.

    ``url`` and ``id_type`` are those of ``StatusCollection``, which checks them.
    """

    def __init__(self, url: str, *, id_type: str = "auto") -> None:
        self._collection = StatusCollection(url, id_type=id_type)

    async def close(self) -> None:
        """Hang up."""
        await self._collection.close()

    async def ping(self) -> None:
        """See whether MongoDB answers, and lets this user read; raises MirrorUnavailable."""
        await self._collection.raw_documents("", (), limit_s=LOOK_S)

    async def find(self, job_id: str, queue_names: Sequence[str]) -> list[MirroredJob]:
        """Return the job of that id in each of the queues; raises MirrorUnavailable."""
        raw = await self._collection.raw_documents(job_id, queue_names, limit_s=LOOK_S)
        found: dict[str, MirroredJob] = {}
        for one in _documents_in(raw):
            job = self._job_of(one, largest=LARGEST_SHOWN)
            if job is not None and job.job_id == job_id and job.queue_name in queue_names:
                found.setdefault(job.queue_name, job)
        return list(found.values())

    async def search(
        self, text: str, *, shown: Callable[[MirroredJob], T], most: int, longest_s: float, before: str = ""
    ) -> HistoryPage[T]:
        """Return what ``shown`` makes of each job that has the text in its data, result or error.

        Documents are not kept: together they may take a hundred times the memory of their lines. It reads
        from the newest document on, or on from ``before``. Raises MirrorUnavailable if nothing could be read;
        ValueError: ``before`` does not come from a page.
        """
        at = IdPlace.of(before) if before else None
        wanted = _Wanted(text)
        page, read, ends_s = HistoryPage[T]([]), 0, time.monotonic() + longest_s
        while True:
            left_s = ends_s - time.monotonic()
            if page.looked_at and (left_s < _SHORTEST_S or read >= _MOST_BYTES):
                return page
            try:
                raw = await self._collection.raw_page(before=at, count=_PAGE, limit_s=left_s)
            except MirrorUnavailable:
                if page.looked_at:
                    return page  # the next look raises it, if MongoDB is still away
                raise
            read += len(raw)
            if not raw:
                page.before, page.is_whole = "", True
                return page
            for one in _documents_in(raw):
                fields = _beginning(one)
                at = IdPlace.behind(fields["_id"])
                page.looked_at += 1
                page.before = at.text
                page.back_to = _moment(fields.get("createdAt"))
                if wanted.may_be_in(one) and (job := self._matching(wanted, one)) is not None:
                    page.found.append(shown(job))
                    if len(page.found) >= most:
                        return page
                if not page.looked_at % _TURN:
                    await asyncio.sleep(0)

    def _matching(self, wanted: "_Wanted", raw: bytes) -> MirroredJob | None:
        job = self._job_of(raw, largest=_LARGEST_DECODED)
        return job if job is not None and (not job.is_whole or wanted.is_in(job.document)) else None

    def _job_of(self, raw: bytes, *, largest: int) -> MirroredJob | None:
        is_whole = len(raw) <= largest
        if is_whole:
            stored = _decoded(raw)
        else:
            fields = _beginning(raw)
            stored = {name: fields[name] for name in _SMALL if name in fields}
        queue_name, given = _QUEUES.get(str(stored.get("queueName"))), stored.get("jobId")
        if queue_name is None or not isinstance(given, str) or len(given) > _LONGEST_ID:
            return None
        job_id = given.removeprefix(shared_id(queue_name, ""))
        shown = {**self._collection.shown(stored), "jobId": job_id}
        return MirroredJob(queue_name, job_id, shown, stored, len(raw), is_whole)


#: The fields read from a document that is too large.
_SMALL = ("_id", "jobId", "queueName", "status", "error", "createdAt", "updatedAt")


class _Wanted:
    """A text to look for, in any case of its letters."""

    def __init__(self, text: str) -> None:
        self._text = text.casefold()
        # ASCII letters appear unchanged in the stored bytes, in names and texts alike.
        self._letters = max(_LETTERS.findall(text.lower()), key=len, default="").encode()

    def may_be_in(self, raw: bytes) -> bool:
        """Return whether the text may be in a stored document."""
        return not self._letters or self._letters in raw.lower()

    def is_in(self, document: dict[str, Any]) -> bool:
        """Return whether the text is in what the job carried, returned, or failed with."""
        return any(self._text in _text_of(document.get(name)).casefold() for name in _SEARCHED)


def _text_of(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    try:
        return dumps_shown(value).decode(errors="replace")
    except TypeError:  # a type of BSON's own, by another program
        return str(value)


def _documents_in(raw: bytes) -> Iterator[bytes]:
    """Yield the documents of a page, each of which begins with its length."""
    at = 0
    while at < len(raw):
        (length,) = struct.unpack_from("<i", raw, at)
        yield raw[at : at + length]
        at += length


def _beginning(raw: bytes) -> Any:
    """Return a document with only its top level decoded; raises MirrorUnavailable."""
    from bson.raw_bson import RawBSONDocument  # noqa: PLC0415 - an extra

    with _readable():
        fields = RawBSONDocument(raw, _options(is_raw=True))
        len(fields)  # decodes the top level
        return fields


def _decoded(raw: bytes) -> dict[str, Any]:
    from bson import decode  # noqa: PLC0415 - an extra

    with _readable():
        return decode(raw, _options())


@contextmanager
def _readable() -> Iterator[None]:
    from bson.errors import BSONError  # noqa: PLC0415 - an extra

    try:
        yield
    except BSONError:
        raise MirrorUnavailable("MongoDB: a document cannot be read") from None


def _options(*, is_raw: bool = False) -> Any:
    """Return options for decoding documents, also with impossible dates and texts that are not UTF-8."""
    from bson.codec_options import CodecOptions, DatetimeConversion  # noqa: PLC0415 - an extra
    from bson.raw_bson import RawBSONDocument  # noqa: PLC0415 - an extra

    kind: Any = RawBSONDocument if is_raw else dict
    conversion = DatetimeConversion.DATETIME_AUTO
    return CodecOptions(
        document_class=kind,
        tz_aware=True,
        datetime_conversion=conversion,
        unicode_decode_error_handler="replace",
    )


def _moment(value: Any) -> datetime | None:
    return value if isinstance(value, datetime) else None
