"""A call names the keys that it touches, and no more of the others than it must."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import hiredis
import pytest

from beeq.protocol.keys import Keys
from beeq.protocol.outcome import Outcome
from beeq.redis import scripts
from beeq.settings import Keep, Settings
from beeq.worker.pump.exchange_packer import ExchangePacker
from beeq.worker.scheduling.actions import ExchangeCall, PendingOutcome

pytestmark = pytest.mark.fast

KEYS = Keys("bq", "q")
EVERY_KEY = [getattr(KEYS, name) for name in scripts.exchange.keys]
FEW_KEYS = EVERY_KEY[: EVERY_KEY.index(KEYS.ahead) + 1]


def keys_of(*statuses: str, **settings: Any) -> list[str]:
    """Return the keys of a call with such outcomes."""
    job = cast("Any", SimpleNamespace(options={"timestamp": 5}))
    outcomes = [
        PendingOutcome(b"1", b"t.0:1", Outcome(job, status, b"{}", b"", attempt=b"[]")) for status in statuses
    ]
    packer = ExchangePacker(KEYS, Settings(**settings))
    reader = hiredis.Reader()
    reader.feed(packer.packed(ExchangeCall(b"t", 1, None, outcomes)))
    _evalsha, _sha, count, *words = reader.gets()
    return [word.decode() for word in words[: int(count)]]


@pytest.mark.parametrize("statuses", [(), ("succeeded",), ("succeeded", "succeeded")])
def test_a_call_of_successes_names_few_keys(statuses):
    assert keys_of(*statuses) == FEW_KEYS


@pytest.mark.parametrize("statuses", [("failed",), ("retrying",), ("succeeded", "failed", "succeeded")])
def test_a_call_with_a_failure_names_every_key(statuses):
    assert keys_of(*statuses) == EVERY_KEY


@pytest.mark.parametrize(
    "settings",
    [
        {"remove_on_success": True},
        {"remove_on_failure": True},
        {"keep_succeeded": Keep(count=1)},
        {"keep_failed": Keep(count=1)},
        {"mirrored": True},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_calls_of_workers_that_drop_or_note_name_every_key(settings):
    assert keys_of("succeeded", **settings) == EVERY_KEY
