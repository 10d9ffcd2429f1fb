"""What one media job may cost: bounds for files that were made to use up time, memory or disk. Pure.

A file of some kilobytes can say that it lasts for years, or that its picture fills the memory. Its facts are
compared with these bounds once they are known, before anything is decoded; what is beyond them fails its job
for good, and the message names the setting. An attribute's setting is its name in capitals behind
``BEEQ_MEDIA_``.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from beeq.media.errors import MediaRefused

_PREFIX = "BEEQ_MEDIA_"
_MOST_THREADS = 8
_WHOLE, _NUMBER = re.compile(r"[0-9]{1,9}"), re.compile(r"[0-9]{1,9}(\.[0-9]{1,3})?")
_SIZE = re.compile(r"([0-9]{1,5})x([0-9]{1,5})")
#: A decoder's pictures are some lines and columns larger than what is shown of them.
_PADDING = 128


def _default_threads() -> int:
    return min(os.cpu_count() or 1, _MOST_THREADS)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaLimits:
    """The bounds of one media job; all are above 0.

    Attributes:
        max_seconds: the longest input, and the longest output.
        max_gap_s: the longest pause between two packets of a sound: ffmpeg fills it in memory.
        max_picture: the largest picture, as stored and as shown, in pixels; in either orientation.
        max_megapixels: the sum of one picture of each input, for all are decoded at once.
        max_streams: the most streams of an input.
        threads: of each decoder and filter, and of encoders that would take more.
        max_alloc_mb: the largest piece of memory that ffmpeg asks for at a time, in MiB.
        max_memory_mb: the memory of one ffmpeg, in MiB.
        max_output_mb: the largest file that is written, in MiB.
        max_cpu_s: the seconds of CPU time of one ffmpeg for each second of its input and output.
        stall_s: an ffmpeg that does not advance for so many seconds is ended, and the attempt fails.

    Raises ValueError if a value is not above 0.
    """

    max_seconds: float = 6 * 60 * 60.0
    max_gap_s: float = 600.0
    max_picture: tuple[int, int] = (8192, 4320)
    max_megapixels: float = 540.0
    max_streams: int = 64
    threads: int = field(default_factory=_default_threads)
    max_alloc_mb: int = 512
    #: A film of the largest picture takes 6 GB, and 250 inputs of high definition take as much.
    max_memory_mb: int = 8192
    max_output_mb: int = 16_384
    max_cpu_s: float = 300.0
    stall_s: float = 300.0

    def __post_init__(self) -> None:
        """Check every value."""
        for limit in fields(self):
            value = getattr(self, limit.name)
            # Comparing refuses NaN.
            if not all(item > 0 for item in (value if isinstance(value, tuple) else (value,))):
                raise ValueError(f"{limit.name} must be above 0")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings; raises ValueError, which names the variable, if one is invalid."""
        given: dict[str, Any] = {}
        for limit in fields(cls):
            variable = setting_of(limit.name)
            if (text := environ.get(variable)) is not None:
                given[limit.name] = _parsed(variable, text, limit.type)
        return cls(**given)

    @property
    def max_pixels(self) -> int:
        """The pixels of the largest picture as a decoder holds it."""
        width, height = self.max_picture
        return (width + _PADDING) * (height + _PADDING)

    def allows_size(self, size: tuple[int, int]) -> bool:
        """Return whether a picture is within ``max_picture``, in either orientation."""
        return max(size) <= max(self.max_picture) and min(size) <= min(self.max_picture)


def setting_of(name: str) -> str:
    """Return the variable of the environment that sets an attribute of ``MediaLimits``."""
    return _PREFIX + name.upper()


def beyond(what: str, limit: str, name: str) -> MediaRefused:
    """Return the error for something beyond a limit.

    ``what`` says what it is and how much (``"'a.gif' has a picture of 16000x16000"``), ``limit`` the bound
    with its unit, ``name`` the attribute of ``MediaLimits``.
    """
    return MediaRefused(f"{what}; the limit is {limit} ({setting_of(name)})")


def _parsed(variable: str, text: str, kind: Any) -> float | tuple[int, int]:
    if kind is float:
        if _NUMBER.fullmatch(text) and float(text) > 0:
            return float(text)
        raise ValueError(f"{variable} must be a number above 0")
    if kind is int:
        if _WHOLE.fullmatch(text) and int(text) > 0:
            return int(text)
        raise ValueError(f"{variable} must be a whole number above 0")
    size = _SIZE.fullmatch(text)
    if size is None or not (int(size[1]) and int(size[2])):
        raise ValueError(f"{variable} must be a width and a height, such as 8192x4320")
    return int(size[1]), int(size[2])
