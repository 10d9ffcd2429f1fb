"""Files whose index, or whose beginning, would take long to read: how much is read, and in which thread."""

from __future__ import annotations

import asyncio
import os
import struct
import threading
import wave
from collections.abc import Callable
from pathlib import Path

import pytest

from beeq.media import formats, paths
from beeq.media.errors import MediaRefused
from beeq.media.inputs import leading
from beeq.media.inputs.container import ContainerFacts, container_facts
from beeq.media.inputs.encryption import encrypted_tracks
from beeq.media.inputs.leading import sound_in
from beeq.media.paths import MediaRoot
from beeq.media.service import LocalMedia
from tests.media.bombs import box, mp4, png, wav
from tests.media.clips import FFMPEG, run_job

FREE = box(b"free")
HUGE = 0x7FFF_FFFF
MP3_FRAME = b"\xff\xfb\x90\x00" + bytes(413)
ID3 = b"ID3\4\0\0\0\0\0\0"
MAX_BOXES = 100_000
#: What opening a file, and asking for its brand, reads.
FEW_READS = 20


class Reader:
    """Reads bytes, and counts it."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.count = self.bytes = 0

    def __call__(self, place: int, count: int) -> bytes:
        self.count += 1
        found = self.content[place : place + count]
        self.bytes += len(found)
        return found


def huge(kind: bytes) -> bytes:
    """The header of a box that says it goes far behind the file's end."""
    return struct.pack(">I", HUGE) + kind


def endless(kind: bytes) -> bytes:
    """… and of one that says it goes farther than any file may."""
    return struct.pack(">I4sQ", 1, kind, (1 << 64) - 64)


def encrypted_track(kind: bytes = b"encv") -> bytes:
    table = box(b"stbl", box(b"stsd", bytes(8), box(kind, bytes(20))))
    return box(b"trak", box(b"mdia", box(b"minf", table)))


@pytest.mark.parametrize("longest", [huge, endless])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_box_ends_where_its_parent_does(longest: Callable[[bytes], bytes], depth: int) -> None:
    inner = b"".join(map(longest, (b"mdia", b"minf", b"stbl", b"stsd")[:depth]))
    read = Reader(box(b"moov", box(b"trak", inner) * 60) + FREE * 9000)
    assert encrypted_tracks("mov", len(read.content), read, 64) == frozenset()
    assert read.count < 1000


def test_boxes_far_apart_are_not_looked_for_outside() -> None:
    far = b"".join(FREE * 200 + huge(kind) for kind in (b"minf", b"stbl", b"stsd"))
    read = Reader(box(b"moov", box(b"trak", huge(b"mdia")) * 60) + far)
    assert encrypted_tracks("mov", len(read.content), read, 64) == frozenset()
    assert read.count < 1000


def test_no_more_tracks_are_read_than_streams_may_be() -> None:
    read = Reader(box(b"moov", encrypted_track(b"avc1") + encrypted_track() * 20))
    assert encrypted_tracks("mov", len(read.content), read, 3) == {1, 2}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return of every read of a file whether it was the loop's own thread that read."""
    made = list[bool]()
    pread = os.pread

    def counted(fd: int, count: int, place: int) -> bytes:
        made.append(threading.current_thread() is threading.main_thread())
        return pread(fd, count, place)

    monkeypatch.setattr(os, "pread", counted)
    return made


def many_boxes() -> bytes:
    """A film, and behind its own track's others of 180,000 boxes."""
    film = mp4([(10, 40)], is_sound=False)
    begin = film.index(b"moov") - 4
    return film[:begin] + box(b"moov", film[begin + 8 :], box(b"trak", FREE * 3000) * 60)


async def test_the_boxes_of_a_file_have_one_bound(tmp_path: Path, reads: list[bool]) -> None:
    (tmp_path / "a.mov").write_bytes(many_boxes())
    with MediaRoot(tmp_path).reading("a.mov") as file:
        facts = await container_facts(file, max_tracks=64)
    assert facts == ContainerFacts(lacking_bytes=0, length_s=None, encrypted=frozenset())
    assert MAX_BOXES / 2 < reads.count(False) <= MAX_BOXES


def open_files() -> set[Path]:
    return set(Path("/dev/fd").iterdir())


async def test_what_a_container_says_is_read_by_a_thread(tmp_path: Path, reads: list[bool]) -> None:
    content = box(b"ftyp", b"isom") + box(b"moov", encrypted_track(b"avc1"), encrypted_track())
    (tmp_path / "a.mp4").write_bytes(content + struct.pack(">I4s", 108, b"mdat"))
    with MediaRoot(tmp_path).reading("a.mp4") as file:
        open_before = open_files()
        opening = len(reads)
        facts = await container_facts(file, max_tracks=2)
        assert open_files() == open_before
    assert facts == ContainerFacts(lacking_bytes=100, length_s=None, encrypted=frozenset((1,)))
    assert reads[opening:]
    assert not any(reads[opening:])


def chunk(kind: bytes, content: bytes = b"") -> bytes:
    return kind + struct.pack("<I", len(content)) + content


def sound_of_chunks() -> bytes:
    sound = wav(8000, 4000)
    begin = sound.index(b"data")
    chunks = chunk(b"junk") * 5000
    return b"RIFF" + struct.pack("<I", len(sound) - 8 + len(chunks)) + sound[8:begin] + chunks + sound[begin:]


def picture_of_chunks() -> bytes:
    picture = png(16, 16)
    end = picture.index(b"IEND") - 4
    text = struct.pack(">I4sI", 0, b"tEXt", 0)
    return picture[:end] + text * 5000 + picture[end:]


def film_of_boxes() -> bytes:
    return mp4([(10, 40)], is_sound=False) + FREE * 5000


@pytest.mark.ffmpeg
@pytest.mark.parametrize(
    ("name", "content", "job_type", "output"),
    [
        ("a.mov", film_of_boxes, "frame-extract", "out.png"),
        ("a.wav", sound_of_chunks, "audio-stitch", "out.wav"),
        ("a.png", picture_of_chunks, "video-stitch", "out.mp4"),
    ],
)
async def test_a_job_has_the_loop_read_little_of_its_file(
    tmp_path: Path,
    reads: list[bool],
    name: str,
    content: Callable[[], bytes],
    job_type: str,
    output: str,
) -> None:
    (tmp_path / name).write_bytes(content())
    await run_job(tmp_path, job_type, [name], output)
    assert (tmp_path / output).stat().st_size
    assert reads.count(False) >= 5000
    assert reads.count(True) <= FEW_READS


def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the places where the beginning of a file is tried as frames."""
    tried = list[int]()
    frames_at = leading._frames_at

    def counted(window: bytes, at: int) -> str | None:
        tried.append(at)
        return frames_at(window, at)

    monkeypatch.setattr(leading, "_frames_at", counted)
    return tried


def test_a_run_of_sync_bytes_is_passed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = counting(monkeypatch)
    front = b"zz" + b"\xff" * 100_000
    assert sound_in(Reader(front + MP3_FRAME * 4)) == ("mp3", len(front))
    assert len(tried) <= 3


@pytest.mark.parametrize("frame", [b"\xff\xfb\x90\x00", b"\xff\xf1\x50\x80\x00\xe0"])
def test_what_may_be_a_frame_is_tried_so_often(monkeypatch: pytest.MonkeyPatch, frame: bytes) -> None:
    tried = counting(monkeypatch)
    assert sound_in(Reader(b"zz" + frame * 20_000)) is None
    assert len(tried) == 4096


@pytest.mark.parametrize("front", [b"", ID3])
def test_the_zeros_before_a_sound_have_one_bound(front: bytes) -> None:
    mebibyte = 1 << 20
    read = Reader((front + bytes(7 * mebibyte)) * 5 + MP3_FRAME * 4)
    assert sound_in(read) is None
    assert read.bytes < 17 * mebibyte
    read = Reader((front + bytes(5 * mebibyte)) * 3 + MP3_FRAME * 4)
    assert sound_in(read) == ("mp3", 3 * (len(front) + 5 * mebibyte))


async def test_others_get_their_turn_between_two_inputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
    (tmp_path / "text.wav").write_text("no sound")
    turns, opened_at = 0, list[int]()
    content_of = formats.content_of

    def noted(read: Callable[[int, int], bytes]) -> tuple[str, int] | None:
        opened_at.append(turns)
        return content_of(read)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(paths, "content_of", noted)
    working = asyncio.create_task(others())
    try:
        media, names = LocalMedia(MediaRoot(tmp_path), FFMPEG), ["a.wav"] * 10
        with pytest.raises(MediaRefused, match=r"'text\.wav' is not a media file"):
            await media.stitch_audio([*names, "text.wav"], "out.wav", lambda _: None)
        with pytest.raises(MediaRefused, match=r"'text\.wav' is not a media file"):
            await media.assemble_video(names, "text.wav", ["mp4"], "out", lambda _: None)
    finally:
        working.cancel()
    assert len(opened_at) == 22
    for begin in (0, 11):
        assert len(set(opened_at[begin : begin + 11])) == 11
