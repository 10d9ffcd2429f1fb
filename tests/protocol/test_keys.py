"""The names of a queue's keys: bee-queue's own, and beeq's beside them."""

from __future__ import annotations

import re

import pytest

from beeq.protocol import keys as keys_module
from beeq.protocol.keys import (
    BEE_SUFFIXES,
    SIDE_SUFFIXES,
    Key,
    Keys,
    RegistryKey,
    WorkerKey,
    hash_tag_of,
    registry_key,
)

pytestmark = pytest.mark.fast

NAMES = [
    ("id", "bq:mail:id"),
    ("jobs", "bq:mail:jobs"),
    ("waiting", "bq:mail:waiting"),
    ("active", "bq:mail:active"),
    ("succeeded", "bq:mail:succeeded"),
    ("failed", "bq:mail:failed"),
    ("delayed", "bq:mail:delayed"),
    ("stalling", "bq:mail:stalling"),
    ("stall_block", "bq:mail:stallBlock"),
    ("events", "bq:mail:events"),
    ("earlier_delayed", "bq:mail:earlierDelayed"),
    ("claims", "bq:mail:beeq:claims"),
    ("results", "bq:mail:beeq:results"),
    ("even_results", "bq:mail:beeq:evenResults"),
    ("odd_results", "bq:mail:beeq:oddResults"),
    ("workers", "bq:mail:beeq:workers"),
    ("cancelled", "bq:mail:beeq:cancelled"),
    ("outbox", "bq:mail:beeq:outbox"),
    ("scan_lease", "bq:mail:beeq:scan"),
    ("mirror_failure", "bq:mail:beeq:mirror"),
    ("requeued", "bq:mail:beeq:requeued"),
    ("swept", "bq:mail:beeq:swept"),
    ("tried", "bq:mail:beeq:tried"),
    ("written", "bq:mail:beeq:written"),
    ("ahead", "bq:mail:beeq:ahead"),
    ("attempts", "bq:mail:beeq:attempts"),
    ("paused", "bq:mail:beeq:paused"),
    ("hidden", "bq:mail:beeq:hidden"),
    ("succeeded_at", "bq:mail:beeq:succeededAt"),
    ("failed_at", "bq:mail:beeq:failedAt"),
    ("seen_success", "bq:mail:beeq:seenSuccess"),
    ("seen_failure", "bq:mail:beeq:seenFailure"),
    ("retention", "bq:mail:beeq:retention"),
    ("minutes", "bq:mail:beeq:minutes"),
    ("hours", "bq:mail:beeq:hours"),
]


@pytest.mark.parametrize(("name", "key"), NAMES)
def test_each_key_has_its_name_on_the_wire(name: str, key: str) -> None:
    assert getattr(Keys("bq", "mail"), name) == key


def test_every_key_that_the_class_offers_is_pinned_above() -> None:
    offered = {name for name, value in vars(Keys).items() if isinstance(value, Key)}
    others = {name for name, value in vars(Keys).items() if isinstance(value, RegistryKey | WorkerKey)}
    assert offered - others == {name for name, _ in NAMES}


def test_a_worker_process_has_a_key_of_its_own() -> None:
    assert Keys("bq", "{mail}", worker="host:1:ab").running == "bq:{mail}:beeq:running:host:1:ab"


@pytest.mark.parametrize(
    ("prefix", "queue_name", "key"),
    [
        ("bq", "mail", "bq:beeq:queues"),
        ("", "mail", "bq:beeq:queues"),
        ("{bq}", "{mail}", "{bq}:beeq:queues"),  # the first tag counts
        ("bq", "{mail}", "bq:beeq:queues:{mail}"),
        ("bq", "a:{mail}:b{c}", "bq:beeq:queues:{mail}"),
        ("bq", "{}mail", "bq:beeq:queues"),
        ("{}bq", "{mail}", "{}bq:beeq:queues"),
    ],
)
def test_in_a_cluster_the_registry_lies_in_the_queues_slot(prefix: str, queue_name: str, key: str) -> None:
    assert Keys(prefix, queue_name, is_in_cluster=True).queues == registry_key(prefix, queue_name) == key
    assert hash_tag_of(key) == hash_tag_of(Keys(prefix, queue_name).jobs)


def test_without_a_cluster_all_queues_share_the_registry() -> None:
    assert Keys("bq", "{mail}").queues == Keys("bq", "films").queues == registry_key("bq")


@pytest.mark.parametrize(
    ("prefix", "queue_name", "key"),
    [
        ("bq", "mail", "bq:mail:jobs"),
        ("", "mail", "bq:mail:jobs"),  # a falsy prefix is bq
        ("my", "mail", "my:mail:jobs"),
        ("bq", "a:b", "bq:a:b:jobs"),  # nothing is escaped
        ("{bq}", "mail", "{bq}:mail:jobs"),
        ("bq", "{mail}", "bq:{mail}:jobs"),
        ("bq", "é *?", "bq:é *?:jobs"),
        ("a:b", "c", "a:b:c:jobs"),
    ],
)
def test_a_key_is_prefix_queue_and_suffix(prefix: str, queue_name: str, key: str) -> None:
    assert Keys(prefix, queue_name).jobs == key


def test_destroying_names_each_stored_key_and_no_channel() -> None:
    stored = [key for name, key in NAMES if name not in ("events", "earlier_delayed")]
    every = Keys("bq", "mail").every()
    assert sorted(every) == sorted([*stored, "bq:mail:beeq:expiries"]), "also the key of an earlier version"
    assert len(set(every)) == len(every)


def test_destroying_names_bee_queues_keys_in_its_own_order() -> None:
    assert BEE_SUFFIXES == (
        "id",
        "jobs",
        "stallBlock",
        "stalling",
        "waiting",
        "active",
        "succeeded",
        "failed",
        "delayed",
    )


def test_beeqs_own_keys_cannot_be_taken_for_bee_queues() -> None:
    bee_words = {key.removeprefix("bq:mail:") for _, key in NAMES if ":beeq:" not in key}
    for suffix in SIDE_SUFFIXES:
        assert suffix.startswith("beeq:")
        assert suffix not in bee_words


def test_the_tables_of_the_documentation_list_just_these_keys() -> None:
    documented = re.findall(
        r"^([\w:]+) +(?:string|hash|list|set|sorted set|stream|channel) ",
        keys_module.__doc__ or "",
        re.MULTILINE,
    )
    assert sorted(documented) == sorted(key.removeprefix("bq:mail:") for _, key in NAMES)
