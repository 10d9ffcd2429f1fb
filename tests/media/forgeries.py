"""Writes media files whose titles and tags, and above all the tags' names, look like ffmpeg's own log."""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

from tests.media.clips import ffmpeg

_LONG = "9" * 290
_STREAM = "Stream #0:0: Video: h264, yuv420p, 16000x16000 [SAR 9:1 DAR 9:1], 1000 fps, 1000 tbr"
#: Names of tags. Each but the first two is a line of ffmpeg's, among others.
KEYS = (
    "alpha_mode",
    "rotate",
    "a\n  Duration: 99:00:00.00, start: 0.000000, bitrate: 1 kb/s\nb",
    f"a\n  Duration: {_LONG}:00:00.00, start: 0.000000, bitrate: 1 kb/s\nb",
    f"a\n  {_STREAM}\n    Side data:\n      Display Matrix: rotation of -90.00 degrees\nb",
    "a\n    Side data:\n      displaymatrix: rotation of 90.00 degrees\nb",
    "a\n  Stream #0:9(und): Audio: pcm_s16le, 1 Hz, 64 channels, s16 (default)\nb",
    f"a\nOutput #0, framecrc, to 'pipe:1':\n  {_STREAM}\nb",
    "a\nOutput #0, framecrc, to 'pipe:1':\n  Stream #0:0: Audio: aac |0123456789abcdef0123456789abcdef| 1 Hz, mono",
    "a\nStream mapping:\n  Stream #0:5 -> #0:0 (copy)\n  Stream #0:6 -> #0:1 (copy)\nb",
    "a\nInput #0, png_pipe, from 'a':\n  Duration: N/A, bitrate: N/A\nb",
    "a\n[mov,mp4,m4a,3gp,3g2,mj2 @ 0x1] stream 0, offset 0x1: partial file\nb",
    "a\n[matroska,webm @ 0x1] File ended prematurely\nb",
    "a\n[mpegts @ 0x1] Packet corrupt (stream 0, dts 1)\nb",
    "a\nmoov atom not found\nb",
    "a\n[framecrc @ 0x1] dimensions not set\nsample rate not set\nb",
    "a\nOutput file #0 does not contain any stream\nb",
    "a\n[h264 @ 0x1] concealing 9 DC, 9 AC, 9 MV errors\nDecoder not found\nb",
    "a\nError writing trailer: No space left on device\nCannot allocate memory\nb",
    "a\n\x1b[1;31mav_interleaved_write_frame(): Input/output error\n\x1b[0mb",
    "a\r  Duration: 88:00:00.00, start: 0\v  Duration: 87:00:00.00, start: 0\f  Duration: 86:00:00.00, start: 0",
)
#: The value of the first two, too: the second shows the picture turned, in older versions of ffmpeg.
VALUES = ("1", "90", *(f"v\n{key}" for key in KEYS[2:]))
_BIG = "x" * 1_000_000
_SPECIAL = re.compile(r"([=;#\\\n])")


def _section(title: str, keys: tuple[str, ...]) -> str:
    def escaped(text: str) -> str:
        return _SPECIAL.sub(r"\\\1", text)

    lines = [f"{escaped(key)}={escaped(value)}" for key, value in zip(keys, VALUES, strict=True)]
    return "\n".join([title, *lines, f"title={escaped(VALUES[4])}", ""])


#: Names as long as the forged ones, in which there is nothing.
PLAIN_KEYS = tuple(f"{'K' * (len(key) - 4)}{number:04}" for number, key in enumerate(KEYS))


def tagged(clip: Path, path: Path, *options: str, keys: tuple[str, ...] = KEYS) -> Path:
    """Copy a clip, with tags of the file, its streams and a chapter, one of which is of 1 MB."""
    texts = path.with_suffix(".txt")
    chapter = _section("[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500", keys)
    streams = _section("[STREAM]", keys) * 2
    big = f"comment={_BIG}\n"
    texts.write_text(f";FFMETADATA1\n{_section('', keys)}{big}{streams}{chapter}", newline="")
    ffmpeg("-i", clip, "-f", "ffmetadata", "-i", texts, *_copied(clip), *options, path)
    texts.unlink()
    return path


def renamed(plain: Path, path: Path) -> Path:
    """Copy a file of ``PLAIN_KEYS`` with the forged ones in their places: Matroska's muxer writes capitals."""
    content = plain.read_bytes()
    for written, meant in zip(PLAIN_KEYS, KEYS, strict=True):
        assert written.encode() in content
        content = content.replace(written.encode(), meant.encode())
    path.write_bytes(content)
    return path


def _copied(clip: Path) -> list[str]:
    streams = ffmpeg("-i", clip, "-map", "0", "-c", "copy", "-f", "framecrc", "-").count(b"#tb ")
    mapped = [word for n in range(streams) for word in (f"-map_metadata:s:{n}", "1:s:0")]
    return ["-map", "0", "-map_metadata", "1", "-map_chapters", "1", *mapped, "-c", "copy"]


def tagged_png(picture: Path, path: Path) -> Path:
    """Copy a PNG, with forged texts before its pixels."""
    content = picture.read_bytes()
    place = content.index(b"IDAT") - 4
    texts = b"".join(
        _png_chunk(b"tEXt", key.encode() + b"\0" + value.encode())
        for key, value in zip((*KEYS, "comment"), (*VALUES, _BIG), strict=True)
    )
    path.write_bytes(content[:place] + texts + content[place:])
    return path


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def tagged_webp(picture: Path, path: Path) -> Path:
    """Copy a plain WebP of 64x48, with a forged description in its EXIF data and in XMP."""
    text = "\n".join(KEYS).encode()
    tiff = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<HHHIII", 1, 0x010E, 2, len(text), 26, 0) + text
    has_exif_and_xmp, size = 0x0C, (63).to_bytes(3, "little") + (47).to_bytes(3, "little")
    header = struct.pack("<I", has_exif_and_xmp) + size
    chunks = _riff_chunk(b"VP8X", header) + picture.read_bytes()[12:]
    chunks += _riff_chunk(b"EXIF", tiff) + _riff_chunk(b"XMP ", text)
    path.write_bytes(_riff_chunk(b"RIFF", b"WEBP" + chunks))
    return path


def _riff_chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def raw_film(path: Path, *, doctype: bytes = b"matroska", codec: bytes = b"V_UNCOMPRESSED") -> Path:
    """Write a Matroska file of one grey picture, with any words for its own kind and its codec."""
    size = _element(0xB0, b"\x40") + _element(0xBA, b"\x30") + _element(0x2EB524, b"I420")
    track = _element(0xD7, b"\1") + _element(0x73C5, b"\1") + _element(0x83, b"\1") + _element(0x86, codec)
    tracks = _element(0x1654AE6B, _element(0xAE, track + _element(0xE0, size)))
    block = _element(0xA3, b"\x81\0\0\x80" + b"\x80" * (64 * 48 * 3 // 2))
    info = _element(0x1549A966, _element(0x2AD7B1, (1_000_000).to_bytes(3)))
    cluster = _element(0x1F43B675, _element(0xE7, b"\0") + block)
    head = _element(0x1A45DFA3, _element(0x4282, doctype))
    path.write_bytes(head + _element(0x18538067, info + tracks + cluster))
    return path


def _element(number: int, content: bytes) -> bytes:
    name = number.to_bytes((number.bit_length() + 7) // 8)
    return name + (1 << 56 | len(content)).to_bytes(8) + content
