"""The common look of a film's pictures, and the filters that give it to an input's pictures. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from beeq.jobs import MediaParameters
from beeq.media.inputs.facts import Facts, Video
from beeq.media.outputs.colours import to_film
from beeq.media.outputs.motion import on_grid, pictures_of, rate_of_film

#: Both fields of a picture become one picture: the rate stays. First of all, for it needs all lines.
_DEINTERLACED = "bwdif=mode=send_frame:parity=auto:deint=all,"

#: So much longer than its pictures is the sound of a clip that ends with them: a packet of it is not cut.
PACKET_S = Fraction(3, 100)


@dataclass(frozen=True, slots=True)
class Look:
    """A film's size, in even numbers of square pixels, and its pictures a second."""

    size: tuple[int, int]
    rate: Fraction


def look_of(videos: Sequence[Video], parameters: MediaParameters) -> Look:
    """Return how a film of these videos looks: the first one's size, and the highest rate."""
    return Look(even(videos[0].shown_size), rate_of_film(videos, parameters.fps))


def alike(video: Video, look: Look, pictures: int | None) -> str:
    """Return the filters that give a video's pictures the film's look.

    They are not described yet (``colours.TAGGED``). They are held or cut to the number of ``pictures``; with
    None they end when they end.
    """
    width, height, left, top = fit(video.shown_size, look.size)
    padded = f"pad={look.size[0]}:{look.size[1]}:{left}:{top},"
    held = f",tpad=stop=-1:stop_mode=clone,trim=end_frame={pictures}" if pictures is not None else ""
    return (
        f"{of_one_size(video)}{deinterlaced(video)}{to_film(video, (width, height))},{padded}setsar=1,"
        f"{on_grid(video, look.rate, is_held=pictures is not None)}{held}"
    )


def of_one_size(video: Video) -> str:
    """Return the filters that fit a video's pictures into the size of its first, with a comma.

    Recordings of calls change their size with the bandwidth. Both filters take any size at any time, and pass
    on pictures that have it already. See ``decoded_by``, which has the pictures come through one graph.
    """
    if video.rotation:
        return ""
    size = f"{video.width}:{video.height}"
    if video.width % 2 or video.height % 2:
        # ``pad`` would take away the odd line or column; another shape is drawn out instead.
        return f"scale={size},"
    return f"scale={size}:force_original_aspect_ratio=decrease:eval=frame,pad={size}:-1:-1:eval=frame,"


def deinterlaced(video: Video) -> str:
    """Return the filter for pictures whose lines are of two moments, with a comma; else nothing."""
    return _DEINTERLACED if video.is_interlaced else ""


def pictures_of_clip(clip: Facts, video: Video, look: Look, still_s: float) -> int | None:
    """Return how many pictures a clip has in the film, as long as its picture and its sound last.

    A still lasts ``still_s`` seconds. Returns None if the file does not give the times of its pictures.
    """
    if video.is_still:
        return max(1, round(still_s * look.rate))
    count = pictures_of(video, look.rate)
    times = clip.audio.timeline if clip.audio is not None else None
    if count is None or times is None or times.shown_end_s is None:
        return count
    return max(count, math.ceil((Fraction(times.shown_end_s) - PACKET_S) * look.rate))


def even(size: tuple[int, int]) -> tuple[int, int]:
    """Return the size rounded down to even numbers, which the encoders need."""
    return max(2, size[0] // 2 * 2), max(2, size[1] // 2 * 2)


def fit(size: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return width, height, left and top of a picture of ``size`` fitted into ``frame``, centred."""
    # Multiplied crosswise, in whole numbers: equal shapes must fill the frame exactly.
    if size[0] * frame[1] >= size[1] * frame[0]:
        fitted = frame[0], _nearest_even(size[1] * frame[0], size[0], frame[1])
    else:
        fitted = _nearest_even(size[0] * frame[1], size[1], frame[0]), frame[1]
    left, top = (frame[0] - fitted[0]) // 4 * 2, (frame[1] - fitted[1]) // 4 * 2
    return fitted[0], fitted[1], left, top


def _nearest_even(dividend: int, divisor: int, most: int) -> int:
    return min(most, max(2, round(dividend / divisor / 2) * 2))
