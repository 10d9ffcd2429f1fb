"""ffmpeg's complaints are distinguished from any texts of files."""

from __future__ import annotations

import pytest

from beeq.media.logs.complaints import Complaint, blamed_input, cause_of
from beeq.media.logs.reader import LogReader

RED, YELLOW, OFF = b"\x1b[1;31m", b"\x1b[0;33m", b"\x1b[0m"
MARK = "4a5f"
LOG = (
    b"Input #0, mov, from 'a.mp4':\n  Metadata:\n"
    b"    a\nError writing trailer: No space left on device\n[in#1/mov @ 0x1] b: c\n"
    + (b"\x1b[0;35m[in#0/mov @ 0x5f]" + b" " + OFF + YELLOW + b"stream 1,\x07 partial\n\xc2\x9bfile\n" + OFF)
    + (b"\x1b[1;35m[out#0/null @ 0x5f] " + OFF + b"video:4KiB\n")
    + (RED + b"Error muxing: " + OFF + RED + b"Input/output error\n" + OFF)
)
COMPLAINTS = (
    Complaint(("in#0/mov @ 0x5f",), "stream 1,? partial ?file", is_error=False),
    Complaint((), "Error muxing: Input/output error"),
)


def read(log: bytes, size: int = 1000, *, mark: str = "", only_complaints: bool = False) -> LogReader:
    reader = LogReader(mark, only_complaints=only_complaints)
    for place in range(0, len(log), size):
        reader.feed(log[place : place + size])
    return reader


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_only_coloured_lines_are_complaints_in_any_pieces(size: int) -> None:
    reader = read(LOG, size)
    assert reader.complaints() == COMPLAINTS
    assert reader.said() == LOG[: LOG.index(b"\x1b")].decode() + "video:4KiB\n"


def test_a_line_of_what_starts_ffmpeg_is_a_complaint() -> None:
    reader = read(
        b"cannot be started: \x1b[1;31mno\x1b[0m\n    Last message repeated 2 times\n", only_complaints=True
    )
    assert [each.text for each in reader.complaints()] == ["cannot be started: no"]


def test_endless_logs_are_kept_in_part() -> None:
    complaint = RED + b"x" * 10_000 + b"\n" + OFF
    reader = read(b"first\n" + complaint * 3000 + b"y" * 3_000_000 + b"\nlast\n", 16_384)
    texts = [each.text for each in reader.complaints()]
    assert len(texts) < 1100
    assert max(map(len, texts)) < 3000
    assert (len(reader.said()) < 300_000, reader.said()[-5:]) == (True, "last\n")


def test_a_long_text_does_not_choose_where_a_complaint_ends() -> None:
    cause = b"No space left on device"
    for length in range(2000, 2100):
        (complaint,) = read(RED + b"x" * length + cause + b" and so on\n" + OFF).complaints()
        assert not complaint.is_the_systems


def test_the_surroundings_of_the_mark_are_kept() -> None:
    far = b"z" * 1_000_000
    said = read(
        b"Stream mapping\n".join([far, b"Output " + MARK.encode() + b" end\n" + far]), 999, mark=MARK
    ).said()
    assert f"Stream mapping\nOutput {MARK} end\nzz" in said
    assert len(said) < 400_000


@pytest.mark.parametrize(
    ("texts", "cause"),
    [
        ([], None),
        (["Conversion failed!", "first", "second"], "first"),
        (["first", "Error writing trailer: No space left on device"], "Error writing trailer: No space left on device"),
        (["first", "doctype 'x: No space left on device'"], "first"),
        (["x" * 1000], "x" * 300),
    ],
)  # fmt: skip
def test_the_systems_errors_are_the_cause_else_the_first(texts: list[str], cause: str | None) -> None:
    assert cause_of([Complaint((), text) for text in texts]) == cause


def test_what_a_decoder_says_is_hardly_the_cause() -> None:
    said = [Complaint((context,), context) for context in ("h264 @ 0x1", "dec:h264 @ 0x1", "in#0 @ 0x1")]
    assert cause_of(said) == "in#0 @ 0x1"
    assert cause_of(said[:2]) == "h264 @ 0x1"


def test_a_warning_is_not_the_systems_fault() -> None:
    assert not Complaint((), "x: No space left on device", is_error=False).is_the_systems


@pytest.mark.parametrize(
    ("complaints", "blamed"),
    [
        ([], None),
        ([Complaint(("in#3/mov @ 0x1",), "broken")], 3),
        ([Complaint(("vist#2:0/h264 @ 0x1", "dec:h264 @ 0x1"), "broken")], 2),
        ([Complaint((), "Error while decoding stream #4:1: Invalid data")], 4),
        ([Complaint((), "doctype [in#1/mov @ 0x1] Error while decoding stream #4:1: x")], None),
        ([Complaint(("in#3/mov @ 0x1",), "broken"), Complaint(("in#1/mov @ 0x1",), "broken")], None),
    ],
)
def test_an_input_is_blamed_by_who_complains_alone(complaints: list[Complaint], blamed: int | None) -> None:
    assert blamed_input(complaints) == blamed
