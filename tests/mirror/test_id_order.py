"""Documents in the order of their ``_id``, whatever types these have."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from bson import Code, DatetimeMS, Decimal128, Int64, MaxKey, MinKey, ObjectId, Timestamp

from beeq.mirror.collection import StatusCollection
from beeq.mirror.id_order import IdPlace
from tests.support.mongo import MongoServer

#: In MongoDB's order.
IDS: tuple[Any, ...] = (
    *(MinKey(), None, float("-inf"), -7, Decimal128("3.5"), 5, Int64(2**60), "", "5", "ü", {"a": 1}, b"xx"),
    *(ObjectId("0" * 24), ObjectId("5" * 24), False, True, datetime(2024, 1, 1, tzinfo=UTC)),
    *(Timestamp(1, 2), MaxKey()),
)


@pytest.fixture
def database(mongo: MongoServer) -> Iterator[str]:
    name = f"ids-{uuid.uuid4().hex[:8]}"
    with mongo.client() as client:
        documents = client[name]["queue-jobs"]
        documents.insert_many(
            {
                "_id": each,
                "jobId": f"d{n}",
                "queueName": "webhook",
                "status": "queued",
                "beeq": {"fingerprint": "f", "revision": 1},
            }
            for n, each in enumerate(IDS)
        )
        yield name
        client.drop_database(name)


@pytest.mark.parametrize("limit", [1, 4, 5, 100])
async def test_the_reconciler_sees_documents_of_all_types_of_id(mongo, database, limit):
    collection = StatusCollection(mongo.url(database))
    found: list[str] = []
    after: IdPlace | None = None
    while documents := await collection.unfinished("webhook-processing", after=after, limit=limit):
        found += [job_id for _, job_id, _ in documents]
        after = documents[-1][0]
    await collection.close()
    assert found == [f"d{n}" for n in range(len(IDS))]


@pytest.mark.parametrize("value", [*IDS, DatetimeMS(2**60)], ids=repr)
def test_a_place_comes_back_from_its_text(value):
    place = IdPlace(value)
    assert IdPlace.of(place.text) == place
    assert set(place.lower_types).isdisjoint(place.higher_types)


def test_a_type_that_is_not_in_the_table_comes_last_but_one():
    place = IdPlace(Code("x"))
    assert place.text == ""
    assert "timestamp" in place.lower_types
    assert place.higher_types == ["maxKey"]


def test_a_text_that_is_no_utf_8_ends_where_that_begins():
    assert IdPlace.behind("ab\N{REPLACEMENT CHARACTER}c") == IdPlace("ab")
