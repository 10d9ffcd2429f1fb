"""What is written for a job: revisions, fingerprints, and values that MongoDB cannot hold."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import bson
import pytest
from hypothesis import given

from beeq.client.reader import Ended, JobState
from beeq.errors import JobFailed
from beeq.mirror.documents import change_of, fingerprint_of, moment_of, revision_of, shared_id, storable
from beeq.protocol.codec import Record
from tests.support.samples import json_values, nested

CREATED_MS = 1_795_488_864_455


def job_state(state="queued", *, status="created", ended=None, **options) -> JobState:
    record = Record(
        {"a": 1, "projectId": "p"}, {"timestamp": CREATED_MS, "stacktraces": [], **options}, status
    )
    return JobState(state, record, ended)


def test_revisions_are_in_the_order_of_the_stream():
    ids = [b"0-1", b"1-0", b"1795488864455-0", b"1795488864455-1", b"1795488864455-99999", b"1795488864456-0"]
    revisions = [revision_of(stream_id) for stream_id in ids]
    assert revisions == sorted(set(revisions))
    assert max(revisions) < 2**63
    assert moment_of(revisions[2]) == datetime.fromtimestamp(CREATED_MS / 1000, UTC)


@pytest.mark.parametrize(
    "other",
    [
        job_state("active"),
        job_state(status="retrying"),
        job_state(retries=1),
        job_state(stacktraces=["Error: x"]),
        job_state("succeeded", ended=Ended(1)),
        job_state("succeeded", ended=Ended(2)),
        job_state("failed", ended=Ended(error=JobFailed("1", "no"))),
        JobState("cancelled", None, Ended(is_cancelled=True)),
    ],
)
def test_each_state_has_a_fingerprint_of_its_own(other):
    assert fingerprint_of(other) != fingerprint_of(job_state())
    assert fingerprint_of(other) == fingerprint_of(replace(other))


def test_progress_is_no_news():
    moved = job_state("active")
    assert moved.record is not None
    moved.record.progress = 50
    assert fingerprint_of(moved) == fingerprint_of(job_state("active"))


def test_a_change_has_the_fields_of_a_status():
    change = change_of("webhook-processing", "7", job_state(), revision_of(b"5-0"))
    assert change.fields == {
        "status": "queued",
        "jobData": {"a": 1, "projectId": "p"},
        "result": None,
        "error": None,
        "projectId": "p",
        "createdAt": datetime.fromtimestamp(CREATED_MS / 1000, UTC),
    }
    assert change.is_fresh
    assert shared_id("webhook-processing", "7") == "webhook:7"


@pytest.mark.parametrize("state", ["queued", "active"])
def test_while_a_job_is_to_be_tried_again_its_last_error_is_kept(state):
    traces = ["ValueError: no: really\nTraceback (most recent call last):\n  File …", "older"]
    change = change_of("q", "7", job_state(state, status="retrying", stacktraces=traces), 1)
    assert (change.fields["error"], change.is_fresh) == ("no: really", False)


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (2**63, "9223372036854775808"),
        (-(2**63) - 1, "-9223372036854775809"),
        (2**63 - 1, 2**63 - 1),
        (True, True),
        (1.5, 1.5),
        (None, None),
        ({"a\0b": 1}, {"a\\u0000b": 1}),
        ({"$a": {"b.c": "$d"}}, {"$a": {"b.c": "$d"}}),
        ("\ud800x", "\\ud800x"),
        ("\0", "\0"),
        ([1, [2, {"x": []}]], [1, [2, {"x": []}]]),
    ],
    ids=ascii,
)
def test_what_bson_cannot_hold_is_put_into_words(value, stored):
    assert storable(value) == stored


def test_what_is_nested_too_deep_becomes_text_and_loses_nothing():
    stored = storable(nested(300))
    depth = 0
    while isinstance(stored, list):
        (stored,) = stored or [None]
        depth += 1
    assert depth == 80
    assert json.loads(stored) == nested(220)


def test_what_is_too_large_shows_its_beginning():
    stored = storable({"text": "x" * 20_000_000})
    assert stored["tooLarge"] > 20_000_000
    assert stored["beginning"].startswith('{"text":"xxx')
    assert len(bson.encode({"v": stored})) < 20_000


@given(json_values(is_lone_surrogate_allowed=True))
def test_whatever_a_job_carries_can_be_stored(value):
    bson.encode({"value": storable(value)})
