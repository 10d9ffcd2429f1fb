"""Chooses a film's picture rate, and puts the pictures of an input on that grid. Pure."""

import math
from collections.abc import Iterable
from fractions import Fraction

from beeq.media.inputs.facts import Timeline, Video

DEFAULT_FPS = Fraction(25)
#: The highest rate that is chosen; a job may ask for more.
MOST_FPS = 60
_LEAST_FPS = 1
#: A rate above this is taken for a unit of time.
_MOST_READ_FPS = 500
#: A base above this is a unit of time, too; below it may be one that some pictures are spaced by.
_MOST_BASE_FPS = 1000
#: Rates that are printed as 23.98, 29.97 and so on.
_TELEVISION_FPS = tuple(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120, 240))
_USUAL_FPS = (*map(Fraction, (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 100, 120, 240)), *_TELEVISION_FPS)
#: Two decimals are printed.
_PRINTED = 0.006
#: A mean rate that is so far from the distance of the pictures has counted pauses, or held pictures.
_SAME = 0.03
#: Pictures closer than this part of a frame may fall on the same place of the grid.
_CLOSE = 0.9


def rate_of_film(videos: Iterable[Video], asked_fps: float | None) -> Fraction:
    """Return the rate that was asked for, else the highest that the videos have, 60 at most."""
    if asked_fps is not None:
        return _exact(asked_fps)
    rates = [rate / math.ceil(rate / MOST_FPS) for video in videos if (rate := rate_of(video)) is not None]
    return max(rates, default=DEFAULT_FPS)


def rate_of(video: Video) -> Fraction | None:
    """Return the rate at which a video moves, pauses not counted; None if it has one picture only."""
    times = video.timeline
    if video.is_still or (times is not None and times.count == 1):
        return None
    if times is not None and times.step_s:
        return _bounded(1 / times.step_s)
    printed = _bounded(_exact(video.fps)) if video.fps else None
    moving_fps = times.moving_fps if times is not None else None
    if moving_fps is not None and (printed is None or abs(printed / moving_fps - 1) > _SAME):
        return _bounded(_usual(moving_fps))
    return printed or (_bounded(_exact(video.base_fps)) if video.base_fps else None)


def on_grid(video: Video, rate: Fraction, *, is_held: bool) -> str:
    """Return the filters that give the pictures of an input a constant rate, from 0 on.

    A late first picture is repeated from 0. Of two pictures that fall on one place of the grid the later one
    moves to the next place, so that each is seen. If their last one is held by a later filter, then so is the
    only picture.
    """
    times = video.timeline
    if is_held and (video.is_still or (times is not None and _is_short(times, rate))):
        return f"settb={1 / rate},loop=loop=-1:size=1:start=0,setpts=N,fps={rate}"
    if not is_held or not _has_room(video, rate):
        return f"fps={rate}:start_time=0"
    # The end of the last picture may be on its place as well; with a copy behind it, it is shown.
    base_fps = video.base_fps if video.base_fps and video.base_fps <= _MOST_BASE_FPS else None
    held = f"tpad=stop={math.ceil(2 * base_fps / rate) + 1}:stop_mode=clone," if base_fps else ""
    moved = r"setpts=PTS+gte(PREV_OUTPTS\,PTS)"
    return f"{held}settb={1 / rate},{moved},fps={rate}:start_time=0"


def pictures_of(video: Video, rate: Fraction) -> int | None:
    """Return on how many places of the grid a video's pictures are shown; None if the file has no times."""
    times = video.timeline
    if times is None or not times.is_timed:
        return None
    # A last picture without a duration is shown once.
    count = round(times.end_s * rate) if times.end_s > times.last_s else round(times.last_s * rate) + 1
    if _has_room(video, rate):
        is_moved = times.last_gap_s is not None and times.last_gap_s * rate < _CLOSE
        count = max(count, round(times.last_s * rate) + 1 + is_moved)
    return max(1, count)


def _is_short(times: Timeline, rate: Fraction) -> bool:
    """Return whether there is one picture, or time for less than one: ``fps`` would leave out all of them."""
    return times.count == 1 or (times.is_timed and round(times.end_s * rate) < 1)


def _has_room(video: Video, rate: Fraction) -> bool:
    """Return whether the pictures are unevenly spaced, but mostly not closer than the places of the grid."""
    times = video.timeline
    if times is None or not times.is_timed or times.step_s is not None or times.moving_fps is None:
        return False
    return times.moving_fps <= rate * (1 + Fraction(_SAME))


def _usual(fps: float) -> Fraction:
    near = min(_USUAL_FPS, key=lambda usual: abs(usual - fps))
    return near if abs(near / fps - 1) < _SAME else Fraction(fps).limit_denominator(100)


def _exact(printed: float) -> Fraction:
    for rate in _TELEVISION_FPS:
        if abs(printed - rate) < _PRINTED:
            return rate
    return Fraction(printed).limit_denominator(100)


def _bounded(rate: Fraction) -> Fraction | None:
    return rate if _LEAST_FPS <= rate <= _MOST_READ_FPS else None
