"""What media jobs cost: stitches of twenty clips, copied and encoded, a film of a minute in three formats.

Prints one line a case, medians of several rounds: seconds, and user CPU time (ffmpeg and this process).
On a machine that does other work too, the CPU time is the figure to compare. Needs ffmpeg, which also makes
the clips; runs the processors without a queue. To compare two versions, run this file with each of them
first on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# Behind PYTHONPATH: another checkout may be measured.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from beeq.media.ffmpeg import find_ffmpeg
from beeq.processors.base import ProcessorSettings
from beeq.processors.media import AssemblyProcessor, MediaProcessor

_H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")


class _RunningJob:
    """A job in a processor's hands, without a queue."""

    id = "film"

    def __init__(self, **data: Any) -> None:
        self.data = data
        self.options: dict[str, Any] = {}

    async def report_progress(self, _value: Any) -> int:
        return 0


def _clip(path: Path, seconds: float, *, size: str = "320x180", rate: int = 25, tone_hz: int = 400) -> None:
    picture = f"testsrc2=s={size}:r={rate}:d={seconds}"
    inputs = ("-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", f"sine=f={tone_hz}:r=48000:d={seconds}")
    subprocess.run([find_ffmpeg(), "-v", "error", "-y", *inputs, *_H264, str(path)], check=True)


def _prepare(root: Path, divisor: int) -> dict[str, tuple[type[Any], dict[str, Any]]]:
    """Make the clips; return each case's processor and job."""
    clips = 20 // divisor
    for number in range(clips):
        _clip(root / f"{number}.mp4", 2 / divisor, tone_hz=300 + 20 * number)
        shapes = {"size": f"{320 + 16 * (number % 4)}x180", "rate": (25, 30)[number % 2]}
        _clip(root / f"mixed{number}.mp4", 2 / divisor, tone_hz=300 + 20 * number, **shapes)  # type: ignore[arg-type]  # each of its own type
    for number in range(6):
        _clip(root / f"scene{number}.mp4", 10 / divisor)
    _clip(root / "film.mp4", 60 / divisor)
    sound = ("-f", "lavfi", "-i", f"sine=f=500:r=48000:d={60 / divisor}")
    subprocess.run([find_ffmpeg(), "-v", "error", "-y", *sound, str(root / "sound.wav")], check=True)
    alike, mixed = ([f"{kind}{number}.mp4" for number in range(clips)] for kind in ("", "mixed"))
    scenes = [f"scene{number}.mp4" for number in range(6)]
    film = {"sceneVideos": scenes, "masterAudio": "sound.wav", "outputFormats": ["mp4", "webm", "mov"]}
    stitch = {"type": "video-stitch", "outputPath": "out.mp4"}
    music = {"type": "music-mix", "outputPath": "out.mp4", "parameters": {"musicTrack": "sound.wav"}}
    return {
        "stitch, twenty alike clips": (MediaProcessor, {**stitch, "inputFiles": alike}),
        "stitch, twenty mixed clips": (MediaProcessor, {**stitch, "inputFiles": mixed}),
        "assembly, a minute, 3 formats": (AssemblyProcessor, film),
        "music under a film, a minute": (MediaProcessor, {**music, "inputFiles": ["film.mp4"]}),
    }


def _measure(processor: Any, job: dict[str, Any]) -> tuple[float, float]:
    """Return the seconds, and the seconds of CPU time, of one job."""
    before, started_s = os.times(), time.perf_counter()
    asyncio.run(processor(_RunningJob(**job)))
    took_s, after = time.perf_counter() - started_s, os.times()
    # User time alone: a machine that does other work makes the system's part longer.
    used_s = (after.user - before.user) + (after.children_user - before.children_user)
    return took_s, used_s


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny clips: only to see that it runs")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        cases = _prepare(root, 10 if asked.quick else 1)
        print(f"{'':<32} {'wall':>8} {'user CPU':>10}")
        for name, (kind, job) in cases.items():
            processor = kind(ProcessorSettings(media_root=root))
            found = [_measure(processor, job) for _ in range(asked.rounds)]
            took_s, used_s = (statistics.median(column) for column in zip(*found, strict=True))
            print(f"{name:<32} {took_s:>6.1f} s {used_s:>8.1f} s")


if __name__ == "__main__":
    main()
