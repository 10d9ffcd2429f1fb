"""Judges media files by decoding them, in numbers: colours, levels in dB, moments in ms, lengths in s.

Nothing here uses beeq's own reading. A picture's numbers are turned into a colour by the tags of its stream
and by the standards' formulas, not by ffmpeg's choice, which differs between its versions; a sound's channels
are kept apart, because a mix of them hides what happened to each.
"""

from __future__ import annotations

import array
import cmath
import functools
import math
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg

from beeq.media.ffmpeg import find_ffmpeg

RATE_HZ = 48_000
#: What a silent moment measures.
SILENCE_DB = -200.0
_WINDOW_S = 0.2
_TRUE_PEAK_RATE_HZ = 4 * RATE_HZ
_HD_LINES = 720
#: The weights of red and of blue in the luma.
_WEIGHTS = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114), "bt2020": (0.2627, 0.0593)}
_VIDEO = re.compile(r"Stream #0:\d+.*?: Video: (.*)")
_PIXELS = re.compile(r"(?:^|, )(\w+)(?:\(([^)]*)\))?, (\d+)x(\d+)")
_PLANAR = re.compile(r"yuv(j?)4(\d)(\d)p(?:(10|12)le)?$")
_LUMA = re.compile(rb"pts_time:(-?[\d.]+).*?YAVG=([\d.]+)", re.DOTALL)
_SOUND = re.compile(r"Stream #0:\d+.*?: Audio: .*? Hz, ([^,]+)")
_CHANNELS = {"mono": 1, "stereo": 2, "5.1": 6, "5.1(side)": 6, "7.1": 8, "quad": 4}


@functools.cache
def judge() -> str:
    """Return the path of the ffmpeg that judges: the bundled one, whatever is tested.

    One of two hundred shared libraries takes five times as long to start.
    """
    return _bundled() or find_ffmpeg()


def _bundled() -> str | None:
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError:  # there is none for this machine
        return None


def decoded(*arguments: str | Path) -> bytes:
    """Run the judge's ffmpeg with the arguments and return what it writes to ``-``."""
    command = [judge(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def described(path: Path) -> str:
    """Return what ffmpeg's log says of a file."""
    command = [judge(), "-hide_banner", "-nostdin", "-i", str(path)]
    return subprocess.run(command, check=False, capture_output=True, text=True).stderr


# Pictures


def colour_of(path: Path, second: float = 0.0, region: str | None = None) -> tuple[int, int, int]:
    """Return red, green, blue (0 to 255) that a player shows at a moment, on average.

    ``region`` is ``width:height:left:top`` in stored pixels, even numbers. A stream without a description is
    taken as players do: BT.709 from 720 lines on, else BT.601; limited range.
    """
    pixels, words, lines = _pixels_of(path)
    seek = ["-ss", f"{second}"] if second else []
    crop = ["-vf", f"crop={region}"] if region else []
    raw = ["-frames:v", "1", "-f", "rawvideo"]
    planar = _PLANAR.match(pixels)
    if planar is None:
        picture = decoded(*seek, "-i", path, *crop, *raw, "-pix_fmt", "rgb24", "-")
        red, green, blue = (sum(picture[place::3]) / (len(picture) // 3) for place in range(3))
        return round(red), round(green), round(blue)
    picture = decoded(*seek, "-i", path, *crop, *raw, "-pix_fmt", pixels, "-")
    bits = int(planar[4] or 8)
    values = array.array("H", picture) if bits > 8 else array.array("B", picture)
    # 4:4:4 has full planes beside the luma, 4:2:2 halves, 4:2:0 quarters.
    share = {"44": 1, "22": 2, "20": 4}[planar[2] + planar[3]]
    luma = len(values) * share // (share + 2)
    chroma = luma // share
    planes = values[:luma], values[luma : luma + chroma], values[luma + chroma : luma + 2 * chroma]
    scale = 1 << (bits - 8)
    y, u, v = (sum(plane) / len(plane) / scale for plane in planes)
    is_full = bool(planar[1]) or "pc" in words
    return _rgb((y, u, v), _matrix_of(words, lines, is_still=bool(planar[1])), is_full=is_full)


def _pixels_of(path: Path) -> tuple[str, list[str], int]:
    said = _VIDEO.search(described(path))
    assert said, f"{path} has no picture"
    found = _PIXELS.search(said[1])
    assert found, said[1]
    return found[1], re.split(r"[,/] ?", found[2] or ""), int(found[4])


def _matrix_of(words: list[str], lines: int, *, is_still: bool) -> str:
    for word in words:
        if word == "bt709":
            return "bt709"
        if word.startswith("bt2020"):
            return "bt2020"
        if word in ("bt470bg", "smpte170m"):
            return "bt601"
    return "bt709" if lines >= _HD_LINES and not is_still else "bt601"


def _rgb(yuv: tuple[float, float, float], matrix: str, *, is_full: bool) -> tuple[int, int, int]:
    red_weight, blue_weight = _WEIGHTS[matrix]
    y, u, v = yuv
    luma = y / 255 if is_full else (y - 16) / 219
    blue_less, red_less = ((value - 128) / (255 if is_full else 224) for value in (u, v))
    red = luma + 2 * (1 - red_weight) * red_less
    blue = luma + 2 * (1 - blue_weight) * blue_less
    green = (luma - red_weight * red - blue_weight * blue) / (1 - red_weight - blue_weight)
    first, second, third = (min(255, max(0, round(255 * part))) for part in (red, green, blue))
    return first, second, third


def near(colour: tuple[int, int, int], wanted: tuple[int, int, int], within: int = 8) -> bool:
    """Return whether two colours differ by no more than ``within`` in any part."""
    return all(abs(a - b) <= within for a, b in zip(colour, wanted, strict=True))


def lumas(path: Path) -> list[tuple[float, float]]:
    """Return the moment (s) and the mean luma (0 to 255, as stored in 8 bits) of each picture, in order."""
    shown = ["-map", "0:V:0", "-vf", "format=yuv420p,signalstats,metadata=print:file=-", "-f", "null", "-"]
    found = re.split(rb"^frame:", decoded("-i", path, *shown), flags=re.MULTILINE)
    read = [match for entry in found if (match := _LUMA.search(entry))]
    return [(float(match[1]), float(match[2])) for match in read]


def flashes_ms(path: Path, threshold: float = 128) -> list[float]:
    """Return the moments at which pictures become brighter than ``threshold``, in ms."""
    moments, was_bright = [], False
    for second, luma in lumas(path):
        if luma > threshold and not was_bright:
            moments.append(1000 * second)
        was_bright = luma > threshold
    return moments


def picture_length_s(path: Path) -> float:
    """Return the end of the last picture; it is taken to last as long as the one before it."""
    times = [second for second, _ in lumas(path)]
    step = times[-1] - times[-2] if len(times) > 1 else 0.0
    return times[-1] + step


# Sound


@dataclass(frozen=True)
class Sound:
    """The samples of each channel, 1 being full scale, at 48 kHz."""

    channels: list[array.array[float]]

    @property
    def length_s(self) -> float:
        """The length in seconds."""
        return len(self.channels[0]) / RATE_HZ

    def level_db(self, hz: float, second: float, channel: int | None = None) -> float:
        """Return the level of one frequency in the 0.2 s from a moment on, in dB below a full-scale tone.

        Without a ``channel``, that of the loudest.
        """
        if channel is None:
            return max(self.level_db(hz, second, each) for each in range(len(self.channels)))
        window = self._window(second, channel)
        turn = 2j * math.pi * hz / RATE_HZ
        # Hann's window: without it, other tones would leak into a frequency.
        weights = [0.5 - 0.5 * math.cos(2 * math.pi * n / len(window)) for n in range(len(window))]
        strength = sum(
            value * weight * cmath.exp(turn * n)
            for n, (value, weight) in enumerate(zip(window, weights, strict=True))
        )
        return _db(2 * abs(strength) / sum(weights))

    def rms_db(self, second: float, channel: int = 0) -> float:
        """Return the level of everything in the 0.2 s from a moment on, in dB below a full-scale tone."""
        window = self._window(second, channel)
        return _db(math.sqrt(2 * sum(value * value for value in window) / len(window)))

    @property
    def peak_db(self) -> float:
        """The largest sample, in dB below full scale."""
        return _db(max(max(map(abs, channel), default=0.0) for channel in self.channels))

    def clicks_ms(self, threshold: float = 0.25, apart_s: float = 0.1) -> list[float]:
        """Return the moments at which the first channel becomes louder than ``threshold``, in ms."""
        moments, quiet_until = [], -1
        for place, value in enumerate(self.channels[0]):
            if abs(value) > threshold:
                if place > quiet_until:
                    moments.append(1000 * place / RATE_HZ)
                quiet_until = place + round(apart_s * RATE_HZ)
        return moments

    def _window(self, second: float, channel: int) -> array.array[float]:
        begin = round(second * RATE_HZ)
        window = self.channels[channel][begin : begin + round(_WINDOW_S * RATE_HZ)]
        assert window, f"the sound is over at {second} s"
        return window


def sound_in(path: Path, rate_hz: int = RATE_HZ) -> Sound:
    """Return a file's sound, its channels apart."""
    said = _SOUND.search(described(path))
    assert said, f"{path} has no sound"
    count = _CHANNELS[said[1].strip()]
    raw = decoded("-i", path, "-map", "0:a:0", "-ar", str(rate_hz), "-f", "f32le", "-c:a", "pcm_f32le", "-")
    samples = array.array("f", raw)
    return Sound([samples[channel::count] for channel in range(count)])


def true_peak_db(path: Path) -> float:
    """Return the largest value between and at the samples, in dB below full scale: of four times as many."""
    return sound_in(path, _TRUE_PEAK_RATE_HZ).peak_db


def _db(value: float) -> float:
    return 20 * math.log10(value) if value > 0 else SILENCE_DB
