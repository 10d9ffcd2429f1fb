"""Extracts the last picture of a video: the last that can be decoded, without decoding all of it.

A window at the end of the file is decoded, then a wider one if that was empty: the sound may last
longer than the picture, and the end may be damaged or missing.
"""

from collections.abc import Callable, Iterator, Sequence

from beeq.media.errors import MediaFailed, shown
from beeq.media.ffmpeg import failure, reading, run
from beeq.media.formats import ImageFormat
from beeq.media.paths import NewFile, OpenFile
from beeq.media.probe import Video, picture_of, probe
from beeq.media.timeline import end_s

_FIRST_WINDOW_S = 4.0
#: Each window is so much wider that the empty ones before it hardly count.
_WIDENING = 4.0


async def extract_last_frame(
    sources: Sequence[OpenFile], target: NewFile, image: ImageFormat, reach: Callable[[float], None]
) -> None:
    """Write the last picture of the one source as a viewer sees it: turned, and in square pixels."""
    (source,) = sources
    facts = await probe(source)
    video = picture_of(source, facts)
    reach(10)
    duration_s = facts.duration_s or await end_s(source, video)
    reach(20)
    window = await _last_window(source, video, duration_s)
    reach(60)
    await _write(source, target, image, video, window)
    reach(90)


def windows(duration_s: float | None) -> Iterator[tuple[str, ...]]:
    """Yield the options that make ffmpeg start near the end, then further from it, at last at 0."""
    window_s = _FIRST_WINDOW_S
    while duration_s is not None and window_s < duration_s:
        yield ("-ss", f"{duration_s - window_s:.3f}")
        window_s *= _WIDENING
    yield ()


async def _last_window(
    source: OpenFile, video: Video, duration_s: float | None
) -> tuple[tuple[str, ...], int]:
    """Return the options of the narrowest window that holds pictures, and their number."""
    for seek in windows(duration_s):
        picked = [*reading(source, *seek), "-map", f"0:{video.index}"]
        if seek:
            # Copying starts at a key frame. In a window without one, as a transport stream may have,
            # pictures would be decoded from others that are missing.
            copied = await run([*picked, "-c", "copy", "-f", "null", "-"], [source.fd])
            if not copied.frames:
                continue
        # The output counts, not the exit status: damaged input may end ffmpeg with an error after all.
        decoded = await run([*picked, "-f", "null", "-"], [source.fd])
        if decoded.frames:
            return seek, decoded.frames
    raise MediaFailed(f"{shown(source.given)} has no picture that can be decoded: {decoded.fault}")


async def _write(
    source: OpenFile, target: NewFile, image: ImageFormat, video: Video, window: tuple[tuple[str, ...], int]
) -> None:
    seek, count = window
    # At time 0: ffmpeg would put copies of a later picture before it.
    filters = [f"select=gte(n\\,{count - 1})", "setpts=0"]
    if video.pixel_aspect != 1:
        filters += ["scale=max(1\\,round(iw*sar)):ih", "setsar=1"]
    written = await run(
        [
            *reading(source, *seek),
            *("-map", f"0:{video.index}", "-vf", ",".join(filters), "-frames:v", "1"),
            *(*image.encoder, "-f", "image2", "-update", "1", target.url),
        ],
        [source.fd, target.fd],
    )
    if not target.reading(image.demuxer).size():
        raise failure([source.given, target.given], written)
