"""Small files, written byte by byte, that say they are large or long; and what jobs on them use up."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.warm_start import WarmStart

_ROOT = Path(__file__).parents[2]
_PATIENCE_S = 280
#: Runs jobs in a process of its own, because the memory of a process' children is known as their maximum.
_ATTACK = """
import asyncio, json, resource, sys
from pathlib import Path
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import AssemblyProcessor, MediaProcessor
from tests.media.clips import FakeJob

async def attempt(root, job):
    processor = (MediaProcessor if "type" in job else AssemblyProcessor)
    settings = ProcessorSettings.from_environment({"BEEQ_MEDIA_ROOT": root, **json.loads(sys.argv[3])})
    try:
        return ["done", await processor(settings)(FakeJob(**job))]
    except Exception as error:
        return [type(error).__name__, str(error)]

async def main():
    return [await attempt(sys.argv[1], job) for job in json.loads(sys.argv[2])]

outcomes = asyncio.run(main())
# In KiB.
print(json.dumps([outcomes, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""


@dataclass(frozen=True)
class Attack:
    """How jobs ended, by the class and the text of their errors, and the most memory of one ffmpeg."""

    outcomes: list[list[Any]]
    peak_mb: float


#: ``attack(root, job, …, SETTING="value", …)``.
Attacking = Callable[..., Attack]


def attack(warm_start: WarmStart, root: Path, *jobs: dict[str, Any], **settings: str) -> Attack:
    """Run jobs under a media root, with settings of the environment."""
    command = ["-c", _ATTACK, str(root), json.dumps(jobs), json.dumps(settings)]
    # ``python -c`` imports from the current folder.
    process = warm_start.start(command, _ROOT, dict(os.environ))
    said, complained = process.communicate(None, _PATIENCE_S)
    assert process.returncode == 0, complained
    return Attack(*json.loads(said))


def gif(width: int, height: int, *, count: int = 1, hundredths: int = 0) -> bytes:
    """One picture, or several of the first pixel; each is shown for so many hundredths of a second."""
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    control = b"!\xf9\4\0" + struct.pack("<H", hundredths) + b"\0\0"
    picture = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2\2\x44\1\0"
    return b"GIF89a" + screen + (control + picture) * count + b";"


def png(width: int, height: int, lines: int = 16) -> bytes:
    """A black picture, of which some lines are there."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    content = zlib.compress(bytes((1 + -(-width // 8)) * lines))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def bmp(width: int, height: int) -> bytes:
    """A picture of one bit a pixel, whose pixels are missing."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 1, 0, 0, 0, 0, 2, 2)
    return (
        b"BM" + struct.pack("<IHHI", 62 + 4096, 0, 0, 62) + header + b"\0\0\0\0\xff\xff\xff\0" + bytes(4096)
    )


def jpeg(width: int, height: int) -> bytes:
    """A grey picture: one table, one code of one bit, and as many blocks as decoders ask for."""
    table = b"\xff\xdb\0\x43\0" + bytes([1]) * 64
    frame = b"\xff\xc0" + struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\1\x11\0"
    codes = b"".join(
        b"\xff\xc4" + struct.pack(">HB", 20, kind) + b"\1" + bytes(15) + b"\0" for kind in (0x00, 0x10)
    )
    scan = b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\1\0" + b"\0\x3f\0"
    return b"\xff\xd8" + table + frame + codes + scan + bytes(512 + width * height // 256) + b"\xff\xd9"


def webp(width: int, height: int) -> bytes:
    """The head of a lossy picture, with nothing behind it."""
    content = b"\x10\2\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(502)
    chunk = b"VP8 " + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def y4m(width: int = 64, height: int = 48, rate: str = "25:1", aspect: str = "1:1", count: int = 3) -> bytes:
    """Grey pictures one after the other, uncompressed; only where they are small are they there."""
    frame = b"FRAME\n" + bytes([128]) * min(width * height * 3 // 2, 1 << 16)
    return f"YUV4MPEG2 W{width} H{height} F{rate} Ip A{aspect} C420\n".encode() + frame * count


def wav(rate_hz: int, samples: int, channels: int = 1) -> bytes:
    """Silence of 8 bits."""
    form = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * channels, channels, 8)
    content = bytes([128]) * samples * channels
    chunks = (
        b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(content)) + content
    )
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I", 8 + len(content)) + kind + content


def _full(kind: bytes, *contents: bytes) -> bytes:
    return box(kind, bytes(4), *contents)


def _numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


PICTURE_SIDE = 16
_MATRIX = _numbers(0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def mp4(
    times: Sequence[tuple[int, int]], *, is_sound: bool, timescale: int = 1000, tracks: int = 1, size: int = 0
) -> bytes:
    """A QuickTime film of uncompressed samples: grey pictures of 16x16, or sounds of 160 bytes at 8 kHz.

    ``times`` are pairs, as in its table: how many samples last how long, in parts of ``timescale``. ``size``
    says that so many bytes are a sample, instead of what is there.
    """
    count = sum(number for number, _ in times)
    sample_bytes = 160 if is_sound else 3 * PICTURE_SIDE**2
    there = 1 if size else count
    length = sum(number * delta for number, delta in times)
    if is_sound:
        entry = box(b"ulaw", bytes(6), struct.pack(">HHHIHHHHI", 1, 0, 0, 0, 1, 16, 0, 0, 8000 << 16))
        media = _full(b"smhd", bytes(4))
    else:
        pixels = struct.pack(">HHII", PICTURE_SIDE, PICTURE_SIDE, 0x480000, 0x480000)
        entry = box(
            b"raw ", bytes(6), struct.pack(">HHH", 1, 0, 0), bytes(12), pixels, bytes(4), b"\0\1", bytes(32),
            b"\0\x18\xff\xff",
        )  # fmt: skip
        media = _full(b"vmhd", bytes(8))
    begin = 16
    table = box(
        b"stbl",
        _full(b"stsd", _numbers(1), entry),
        _full(b"stts", _numbers(len(times)), *(_numbers(*pair) for pair in times)),
        _full(b"stsc", _numbers(1, 1, count, 1)),
        _full(b"stsz", _numbers(size or sample_bytes, count)),
        _full(b"stco", _numbers(1, begin + 8)),
    )
    handler = _full(b"hdlr", b"mhlr", b"soun" if is_sound else b"vide", bytes(12), b"\0")
    data = box(b"dinf", _full(b"dref", _numbers(1), box(b"url ", b"\0\0\0\1")))
    length = min(length, 2**32 - 1)
    side = 0 if is_sound else PICTURE_SIDE << 16
    track = box(
        b"trak",
        box(b"tkhd", b"\0\0\0\7", _numbers(0, 0, 1, 0, length, 0, 0, 0, 0), _MATRIX, _numbers(side, side)),
        box(
            b"mdia",
            _full(b"mdhd", _numbers(0, 0, timescale, length, 0)),
            handler,
            box(b"minf", media, data, table),
        ),
    )  # fmt: skip
    movie = _full(
        b"mvhd", _numbers(0, 0, timescale, length, 0x10000, 0x1000000, 0, 0), _MATRIX, bytes(24), _numbers(2)
    )
    content = bytes([128 if not is_sound else 255]) * sample_bytes * there
    return box(b"ftyp", b"qt  ", bytes(4)) + box(b"mdat", content) + box(b"moov", movie, track * tracks)
