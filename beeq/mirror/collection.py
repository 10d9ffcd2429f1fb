"""The border to MongoDB: the collection ``queue-jobs``. Knows documents, and nothing of Redis.

Every call has a time limit, and turns PyMongo's errors into ``MirrorUnavailable``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from beeq.environment import ProjectIdType, check_mongo_url, check_project_id_type
from beeq.errors import BeeqError, shortened
from beeq.job_status import mirrored_name
from beeq.jobs import JOB_TYPES
from beeq.mirror.documents import Change, shared_id, storable, update_of
from beeq.mirror.id_order import IdPlace
from beeq.mirror.project_ids import converted, has_wrong_type, readable
from beeq.protocol.codec import dumps
from beeq.redis.urls import redact, secrets_in

if TYPE_CHECKING:
    from pymongo.asynchronous.collection import AsyncCollection

logger = logging.getLogger(__name__)

COLLECTION = "queue-jobs"
DEFAULT_DATABASE = "beeq"
#: The longest wait for one reply; a write is one of some hundred documents.
_WRITE_S = 30.0
_READ_S = 5.0
_FIND_SERVER_MS = 2000
#: Within its time limit, a look at further documents has at least this long.
_SHORTEST_S = 0.1
_DUPLICATE_KEY = 11000
#: Documents read, and at most converted, by one step of a repair.
_REPAIR_PAGE = 1000
#: Fields that readers do not get: MongoDB's own, and beeq's.
_HIDDEN = ("_id", "__v", "beeq")


class MirrorUnavailable(BeeqError):
    """MongoDB cannot be reached, or refused a call. Messages hold no password; jobs never see this error."""


class StatusCollection:
    """The documents of all mirrored queues, in the URL's database, or in ``beeq`` if it names none.

    ``id_type`` is the type of ``projectId``, see ``beeq.mirror.project_ids``. Every method may raise
    ``MirrorUnavailable``; construction raises ValueError if the URL or the type is invalid.
    """

    def __init__(self, url: str, *, id_type: str = "auto") -> None:
        check_mongo_url(url)
        self._id_type: ProjectIdType = check_project_id_type(id_type)
        try:
            from pymongo import AsyncMongoClient  # noqa: PLC0415 - an extra
            from pymongo.errors import PyMongoError  # noqa: PLC0415 - an extra
        except ImportError:
            raise ImportError("the mirror needs PyMongo: install 'beequeue[mongo]'") from None
        try:
            self._client: Any = AsyncMongoClient(
                url,
                tz_aware=True,
                serverSelectionTimeoutMS=_FIND_SERVER_MS,
                connectTimeoutMS=_FIND_SERVER_MS,
                socketTimeoutMS=_WRITE_S * 1000,
                appname="beeq",
                retryWrites=True,
                connect=False,
            )
            database = self._client.get_default_database(DEFAULT_DATABASE)
        except (PyMongoError, ValueError):
            # "from None": the cause repeats parts of the URL.
            raise ValueError("the Mongo URL is malformed") from None
        self._documents: AsyncCollection[dict[str, Any]] = database[COLLECTION]
        self._secrets = list(secrets_in(url))
        self._has_index = False
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def wait_idle(self, timeout_s: float) -> None:
        """Wait until no call is under way, or the time is over.

        PyMongo leaves the socket of a cancelled call to the garbage collector.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()

    async def close(self) -> None:
        """Close all connections; if this is cancelled, without telling MongoDB that the sessions end."""
        try:
            await self._client.close()
        except asyncio.CancelledError:
            await self._client.close()  # again, without sessions to end; else its tasks would go on for ever
            raise

    @asynccontextmanager
    async def _bounded(self, limit_s: float) -> AsyncIterator[None]:
        from bson.errors import BSONError  # noqa: PLC0415 - an extra
        from pymongo.errors import PyMongoError  # noqa: PLC0415 - an extra

        self._in_flight += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(limit_s):
                yield
        except TimeoutError:
            raise MirrorUnavailable("MongoDB did not answer in time") from None
        except PyMongoError as error:
            text = redact(str(error), *self._secrets).partition(", Topology Description")[0]
            raise MirrorUnavailable(f"MongoDB: {shortened(text, 300)}") from None
        except BSONError:  # an impossible date, say; other programs write here, too
            raise MirrorUnavailable("MongoDB: a document cannot be read") from None
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    async def ensure_index(self) -> None:
        """Create the indexes, once, unless equivalent ones exist.

        One that MongoDB refuses, for old duplicates, is logged and left out.
        """
        if self._has_index:
            return
        async with self._bounded(_READ_S):
            await self._client.admin.command("ping")
        for names, is_unique in ((["jobId"], True), (["status", "queueName"], False)):
            if await self._has_index_on(names, is_unique=is_unique):
                continue
            try:
                async with self._bounded(_WRITE_S):
                    await self._documents.create_index([(name, 1) for name in names], unique=is_unique)
            except MirrorUnavailable as error:
                # It may have been made in between, or another index may have its name.
                if not await self._has_index_on(names, is_unique=is_unique, is_partial=True):
                    logger.warning("no index on %s of %s: %s", names[0], COLLECTION, error)
        self._has_index = True

    async def _has_index_on(self, names: list[str], *, is_unique: bool, is_partial: bool = False) -> bool:
        """Return whether there is an index on these fields, with any name and options.

        An index for some documents only, or with another collation, counts only with ``is_partial``.
        """
        try:
            async with self._bounded(_READ_S):
                indexes = await self._documents.index_information()
        except MirrorUnavailable:  # as without the right to list them
            return False
        return any(
            [name for name, _order in index["key"]] == names
            and (bool(index.get("unique")) or not is_unique)
            and (is_partial or not {"partialFilterExpression", "collation"} & index.keys())
            for index in indexes.values()
        )

    # Writing.

    async def write(self, changes: Sequence[Change]) -> None:
        """Write each change whose document has no later revision; writing it twice is harmless."""
        await self.ensure_index()
        pending = [(change, change.job_id) for change in changes]
        refused = await self._write(pending)
        if not refused:
            return
        # Another queue's job has the id; or another writer has just created the document: now it is found.
        again = []
        for change, _job_id in refused:
            owner = await self._owner_of(change.job_id)
            is_shared = owner is not None and owner != mirrored_name(change.queue_name)
            job_id = shared_id(change.queue_name, change.job_id) if is_shared else change.job_id
            again.append((change, job_id))
        for change, job_id in await self._write(again):
            logger.error("MongoDB refused the state of job %.200r of %s", job_id, change.queue_name)

    async def _write(self, pending: Sequence[tuple[Change, str]]) -> list[tuple[Change, str]]:
        """Write; return the changes that met a duplicate key."""
        from bson.errors import BSONError  # noqa: PLC0415 - an extra
        from pymongo import UpdateOne  # noqa: PLC0415 - an extra
        from pymongo.errors import BulkWriteError  # noqa: PLC0415 - an extra

        if not pending:
            return []
        operations = [
            UpdateOne(_document_of(change, job_id), update_of(change, self._id_type), upsert=True)
            for change, job_id in pending
        ]
        async with self._bounded(_WRITE_S):
            try:
                await self._documents.bulk_write(operations, ordered=False)
            except BulkWriteError as error:
                faults = error.details.get("writeErrors", [])
            except (BSONError, OverflowError) as error:  # not sent: too large, or a value without a BSON type
                if len(pending) > 1:
                    return [found for one in pending for found in await self._write([one])]
                faults = [{"index": 0, "code": 0, "errmsg": type(error).__name__}]
            else:
                return []
        duplicates = [pending[fault["index"]] for fault in faults if fault["code"] == _DUPLICATE_KEY]
        for fault in faults:
            if fault["code"] != _DUPLICATE_KEY:
                await self._write_as_text(*pending[fault["index"]], reason=str(fault.get("errmsg", "")))
        return duplicates

    async def _write_as_text(self, change: Change, job_id: str, *, reason: str) -> None:
        """Write a refused change again with its values as text, so that it cannot block the others."""
        from bson.errors import BSONError  # noqa: PLC0415 - an extra
        from pymongo.errors import WriteError  # noqa: PLC0415 - an extra

        texts = {name: _as_text(change.fields[name]) for name in ("jobData", "result")}
        update = update_of(replace(change, fields=change.fields | texts), self._id_type)
        async with self._bounded(_READ_S):
            try:
                await self._documents.update_one(_document_of(change, job_id), update, upsert=True)
            except (WriteError, BSONError, OverflowError):
                logger.error(  # noqa: TRY400 - the trace would repeat the job
                    "job %.200r of %s cannot be mirrored: %.200r", job_id, change.queue_name, reason
                )

    async def _owner_of(self, job_id: str) -> str | None:
        async with self._bounded(_READ_S):
            found = await self._documents.find_one({"jobId": job_id}, {"queueName": 1})
        return None if found is None else str(found.get("queueName"))

    async def set_status(
        self,
        job_id: str,
        queue_name: str | None,
        *,
        status: str,
        result: Any,
        error: str | None,
        revision: int = 0,
        fingerprint: str | None = None,
    ) -> None:
        """Write an operator's status; it stays until the job's state in Redis changes.

        ``revision`` is that of the newest change at the time of the request: changes up to it do not
        overwrite this. ``fingerprint`` is that of the job's state then, so that the reconciler finds no
        difference; None if Redis knows no such job, or several.
        """
        now = datetime.now(UTC)
        created: dict[str, Any] = {"jobId": job_id}
        wanted = dict(created)
        if queue_name is not None:
            created["queueName"] = wanted["queueName"] = mirrored_name(queue_name)
            wanted["jobId"] = {"$in": [job_id, shared_id(queue_name, job_id)]}
        fields = {"status": status, "result": storable(result), "error": error, "updatedAt": now}
        if fingerprint is not None:
            fields["beeq.fingerprint"] = fingerprint
        later = {"$max": {"beeq.revision": revision}}
        new = {"createdAt": now, "__v": 0, "jobData": None, "projectId": None}
        async with self._bounded(_READ_S):
            if not (await self._documents.update_one(wanted, {"$set": fields, **later})).matched_count:
                update = {"$set": fields, "$setOnInsert": new, **later}
                await self._documents.update_one(created, update, upsert=True)

    async def repair_project_ids(self) -> int:
        """Convert the ``projectId`` of all documents that have the other type; return how many there were.

        Nothing else changes, not even ``updatedAt``.
        """
        wanted = {"queueName": {"$in": [mirrored_name(name) for name in JOB_TYPES]}}
        fields = {"projectId": 1, "jobData.projectId": 1}
        update = [{"$set": {"projectId": converted(self._id_type)}}]
        changed = 0
        async with self._documents.find(wanted, fields) as cursor:
            while True:
                async with self._bounded(_WRITE_S):
                    found = await cursor.to_list(_REPAIR_PAGE)
                    if not found:
                        return changed
                    wrong = [one["_id"] for one in found if has_wrong_type(one, self._id_type)]
                    if wrong:
                        done = await self._documents.update_many({"_id": {"$in": wrong}}, update)
                        changed += done.modified_count

    # Reading.

    async def find(self, job_id: str, queue_names: Iterable[str]) -> dict[str, Any] | None:
        """Return the newest document of the job, or None."""
        names = list(queue_names)
        async with self._bounded(_READ_S):
            found = await self._documents.find(_of_job(job_id, names)).sort("updatedAt", -1).to_list(10)
        for document in found:
            if document.get("queueName") in (None, *map(mirrored_name, names)):
                return {**self.shown(document), "jobId": job_id}
        return None

    def shown(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Return a stored document as readers get it."""
        fields = {name: value for name, value in document.items() if name not in _HIDDEN}
        return readable(fields, self._id_type)

    async def raw_documents(self, job_id: str, queue_names: Iterable[str], *, limit_s: float) -> bytes:
        """Return the stored bytes of documents that may be the job's, concatenated, the newest first.

        Each queue counts its own ids: another queue's job of that id may be among them.
        """
        order = [("updatedAt", -1)]
        return await self._raw(_of_job(job_id, queue_names), order, count=10, limit_s=limit_s)

    async def raw_page(self, *, before: IdPlace | None, count: int, limit_s: float) -> bytes:
        """Return the stored bytes of documents, concatenated, in the order of ``_id``, the last first.

        They are before ``before`` (None: the last), at most ``count``, and of 16 MB; none at the end.
        """
        ends_s = time.monotonic() + limit_s
        order = [("_id", -1)]
        if before is None:
            return await self._raw({}, order, count=count, limit_s=limit_s)
        raw = await self._raw({"_id": {"$lt": before.value}}, order, count=count, limit_s=limit_s)
        if raw or not before.lower_types:
            return raw
        left_s = max(_SHORTEST_S, ends_s - time.monotonic())
        return await self._raw({"_id": {"$type": before.lower_types}}, order, count=count, limit_s=left_s)

    async def _raw(
        self, wanted: dict[str, Any], order: list[tuple[str, int]], *, count: int, limit_s: float
    ) -> bytes:
        async with self._bounded(limit_s):
            cursor: Any = self._documents.find_raw_batches(
                wanted, sort=order, limit=-count, max_time_ms=max(1, round(limit_s * 1000))
            )
            async with cursor:
                async for batch in cursor:
                    return bytes(batch)
        return b""

    async def fingerprints(self, queue_name: str, job_ids: Sequence[str]) -> dict[str, str]:
        """Return the mirrored fingerprint of each job that has a document written by beeq."""
        by_name = {shared_id(queue_name, job_id): job_id for job_id in job_ids}
        by_name |= {job_id: job_id for job_id in job_ids}
        wanted = {"jobId": {"$in": list(by_name)}, "queueName": mirrored_name(queue_name)}
        async with self._bounded(_WRITE_S):
            found = await self._documents.find(wanted, {"jobId": 1, "beeq.fingerprint": 1}).to_list(None)
        return {
            by_name[document["jobId"]]: document["beeq"]["fingerprint"]
            for document in found
            if "fingerprint" in document.get("beeq", {})
        }

    async def unfinished(
        self, queue_name: str, *, after: IdPlace | None, limit: int
    ) -> list[tuple[IdPlace, str, str]]:
        """Return place, job id and fingerprint of beeq's documents that say queued or processing.

        They come in the order of ``_id``, from behind ``after`` (None: from the first), at most ``limit``.
        """
        wanted: dict[str, Any] = {
            "queueName": mirrored_name(queue_name),
            "status": {"$in": ["queued", "processing"]},
            "beeq.fingerprint": {"$exists": True},
        }
        found = await self._in_order(wanted, None if after is None else {"$gt": after.value}, limit)
        if after is not None and after.higher_types and len(found) < limit:
            found += await self._in_order(wanted, {"$type": after.higher_types}, limit - len(found))
        prefix = shared_id(queue_name, "")
        return [
            (
                IdPlace(document["_id"]),
                document["jobId"].removeprefix(prefix),
                document["beeq"]["fingerprint"],
            )
            for document in found
        ]

    async def _in_order(
        self, wanted: dict[str, Any], ids: dict[str, Any] | None, limit: int
    ) -> list[dict[str, Any]]:
        """Return id and beeq's own fields of documents whose ``_id`` fits, in the order of that."""
        of_ids = {} if ids is None else {"_id": ids}
        async with self._bounded(_WRITE_S):
            return await (
                self._documents.find({**wanted, **of_ids}, {"jobId": 1, "beeq": 1})
                .sort("_id", 1)
                .limit(limit)
                .to_list(None)
            )


def _of_job(job_id: str, queue_names: Iterable[str]) -> dict[str, Any]:
    return {"jobId": {"$in": [job_id, *(shared_id(name, job_id) for name in queue_names)]}}


def _document_of(change: Change, job_id: str) -> dict[str, Any]:
    return {"jobId": job_id, "queueName": mirrored_name(change.queue_name)}


def _as_text(value: Any) -> Any:
    return None if value is None else dumps(value).decode(errors="replace")
