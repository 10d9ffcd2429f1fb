"""Ends a run of ffmpeg that does not advance, such as one whose filter waits for a stream that never comes.

A run advances if it writes (its progress and its output grow), or if it reads: seeking a picture in a long
film takes minutes without an output. What it reads is known on Linux only.
"""

import asyncio
from pathlib import Path

#: Looks, not seconds, are counted: while the whole machine sleeps nothing advances, and nothing is looked at.
_LOOKS = 10
_READ = "rchar: "


class Watchdog:
    """Counts the looks at which a process has not advanced since the one before."""

    def __init__(self, pid: int, stall_s: float) -> None:
        self.stall_s = stall_s
        self._pid = pid
        self._written: object = None

    def note(self, written: object) -> None:
        """Take what has been written so far; another value than before is an advance."""
        self._written = written

    async def stalled(self) -> None:
        """Return when the process has not advanced for ``stall_s``."""
        before, unchanged = self._seen(), 0
        while unchanged < _LOOKS:
            await asyncio.sleep(self.stall_s / _LOOKS)
            now = self._seen()
            unchanged, before = (unchanged + 1 if now == before else 0), now

    def _seen(self) -> tuple[object, str]:
        return self._written, _bytes_read(self._pid)


def _bytes_read(pid: int) -> str:
    try:
        counted = Path(f"/proc/{pid}/io").read_text()
    except OSError:
        return ""
    return next((line for line in counted.splitlines() if line.startswith(_READ)), "")
