"""What a worker process says of itself, as text; and what is read where a stranger has written."""

from __future__ import annotations

import pytest

from beeq.protocol.running import ProcessFacts, decode_running, encode_facts

pytestmark = pytest.mark.fast
FACTS = ProcessFacts(
    version="1.2",
    started_ms=1,
    clock_ms=2,
    places=10,
    busy=3,
    is_taking=True,
    stall_interval_ms=5000,
    noted_ms=7,
)


def test_what_was_written_is_read() -> None:
    fields = {b"process": encode_facts(FACTS), b"noted": b"7", b"job:a:b": b"5", b"job:process": b"6"}
    assert decode_running(fields) == (FACTS, [("a:b", 5), ("process", 6)])


@pytest.mark.parametrize(
    "process",
    [b"", b"[]", b"null", b"{", b"\xff", b'{"version":1,"places":-1,"busy":true,"taking":1,"clock":1e400}'],
)
def test_what_nobody_of_beeqs_wrote_is_unknown(process: bytes) -> None:
    fields = {b"process": process, b"job:1": b"x", b"job:2": b"-1", b"job:3": b"9" * 40, b"other": b"5"}
    assert decode_running(fields) == (ProcessFacts(), [])


def test_a_process_that_notes_nothing_is_unknown() -> None:
    assert decode_running({}) == (ProcessFacts(), [])
