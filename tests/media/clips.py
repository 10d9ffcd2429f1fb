"""Makes small clips with ffmpeg and judges files by decoding them, apart from beeq's own reading."""

from __future__ import annotations

import array
import cmath
import itertools
import math
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from beeq.media.ffmpeg import FFmpeg, find_ffmpeg
from beeq.media.limits import MediaLimits
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import MediaProcessor
from tests.support.judges import decoded

COLOURS = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
RATE_HZ = 48_000
#: Runs beeq's own calls, within the usual limits.
FFMPEG = FFmpeg(MediaLimits())


class FakeJob:
    """A job in a handler's hands, without a queue."""

    def __init__(self, **data: Any) -> None:
        self.id: str | None = "job-1"
        self.data: Any = data
        self.options: dict[str, Any] = {}
        self.reports: list[Any] = []

    async def report_progress(self, value: Any) -> int:
        self.reports.append(value)
        return 0


async def run_job(root: Path, job_type: str, inputs: list[str], output: str, **parameters: Any) -> Any:
    processor = MediaProcessor(ProcessorSettings(media_root=root))
    return await processor(
        FakeJob(type=job_type, inputFiles=inputs, outputPath=output, parameters=parameters)
    )


#: The bytes of files that were made from filters alone, by what made them: many tests make the same ones.
_made: dict[tuple[str, ...], bytes] = {}


def ffmpeg(*arguments: str | Path) -> bytes:
    """Run ffmpeg; the same file is made once. What is written to ``-`` is a judge's, who need not be the tested one."""
    *others, output = arguments
    if output == "-":
        return decoded(*arguments)
    program = find_ffmpeg()
    if not (isinstance(output, Path) and is_of_filters_alone(others)):
        return ran(program, arguments)
    key = (program, *map(str, others), output.suffix)
    if key in _made:
        output.write_bytes(_made[key])
        return b""
    said = ran(program, arguments)
    _made[key] = output.read_bytes()
    return said


def ran(program: str, arguments: Iterable[str | Path]) -> bytes:
    command = [program, "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def is_of_filters_alone(arguments: Sequence[str | Path]) -> bool:
    inputs = [number for number, word in enumerate(arguments) if word == "-i"]
    return not any(isinstance(word, Path) for word in arguments) and all(
        tuple(arguments[number - 2 : number]) == ("-f", "lavfi") for number in inputs
    )


def colour_clip(
    path: Path,
    colour: str,
    *,
    size: str = "64x48",
    fps: str = "10",
    seconds: float = 1,
    tone_hz: int | None = None,
    tone_s: float | None = None,
    last: str | None = None,
    options: tuple[str, ...] = H264,
) -> Path:
    """Make a clip of one colour, with a tone or mute; ``last`` is the colour of its last picture."""
    frames = round(seconds * float(fps))
    change = f",drawbox=color={last}:t=fill:enable='gte(n,{frames - 1})'" if last else ""
    sound = f"sine=f={tone_hz}:d={tone_s or seconds}:r={RATE_HZ},volume=8"
    inputs = ["-f", "lavfi", "-i", f"color={colour}:s={size}:r={fps}:d={seconds}{change}"]
    if tone_hz:
        inputs += ["-f", "lavfi", "-i", sound]
    ffmpeg(*inputs, *options, path)
    return path


def varying_clip(path: Path, source: str, *options: str) -> Path:
    """Make a clip that keeps the times of a source's pictures, evenly spaced or not.

    Versions before 5.1 would fill the gaps in an MP4, newer ones have another option for not doing
    so. No version fills any in a Matroska file, or where packets are copied.
    """
    kept = path.with_suffix(".kept.mkv")
    ffmpeg("-f", "lavfi", "-i", source, *options, kept)
    ffmpeg("-i", kept, "-c", "copy", path)
    kept.unlink()
    return path


def turned(clip: Path, path: Path, *, degrees: int) -> Path:
    """Copy an MP4 whose first stream is its picture, with the note that players are to turn it.

    The note is written by hand: versions before 6.0 have no option for it that newer ones have.
    """
    cosine, sine = {90: (0, 1), 180: (-1, 0)}[degrees]
    content = bytearray(clip.read_bytes())
    header = content.index(b"tkhd", content.rindex(b"moov"))
    one, matrix = 1 << 16, header + 44
    struct.pack_into(">4i", content, matrix, cosine * one, sine * one, 0, -sine * one)
    struct.pack_into(">i", content, matrix + 16, cosine * one)
    path.write_bytes(content)
    return path


def colour_at(path: Path, second: float = 0.0, region: str = "iw:ih:0:0") -> str:
    """Return the name of the colour that a region has at a moment, on average."""
    seek = ["-ss", str(second)] if second else []
    picture = ("-vf", f"crop={region},scale=1:1", "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "rgb24")
    pixel = ffmpeg(*seek, "-i", f"file:{path}", *picture, "-")
    near = [
        name
        for name, colour in COLOURS.items()
        if all(abs(a - b) < 60 for a, b in zip(pixel, colour, strict=True))
    ]
    return near[0] if near else f"rgb{tuple(pixel)}"


def frame_count(path: Path) -> int:
    return len(ffmpeg("-i", path, "-vf", "scale=2:2", "-f", "rawvideo", "-pix_fmt", "gray", "-")) // 4


def sound_of(path: Path) -> array.array[int]:
    """Return the samples of a file's sound, mono at 48 kHz."""
    raw = ffmpeg("-i", path, "-vn", "-ac", "1", "-ar", str(RATE_HZ), "-f", "s16le", "-")
    return array.array("h", raw)


def tone_at(samples: array.array[int], second: float) -> int:
    """Return the frequency of the tone that starts at a moment, in Hz; 0 is silence."""
    begin = round(second * RATE_HZ)
    window = samples[begin : begin + RATE_HZ // 5]
    if max(map(abs, window), default=0) < 500:
        return 0
    crossings = sum(1 for a, b in itertools.pairwise(window) if a < 0 <= b)
    return round(crossings * 5 / 10) * 10


def level_of(samples: array.array[int], second: float, hz: int) -> float:
    """Return how strong one frequency is at a moment; a full-scale tone has 32767 / 2."""
    begin = round(second * RATE_HZ)
    window = samples[begin : begin + RATE_HZ // 5]
    turn = 2j * math.pi * hz / RATE_HZ
    return abs(sum(value * cmath.exp(turn * n) for n, value in enumerate(window))) / len(window)


def tree(root: Path) -> dict[str, bytes | None]:
    """Return every file below a folder with its bytes; folders, links and the like with None."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in root.rglob("*")
    }
