"""Extracts the last picture of a video: the last that can be decoded, without decoding all of it.

A window at the end of the file is decoded, then a wider one if that was empty: the sound may last
longer than the picture, and the end may be damaged or missing.
"""

from collections.abc import Iterator, Sequence

from beeq.media.errors import MediaFailed, shown
from beeq.media.ffmpeg import FFmpeg, MediaWork
from beeq.media.formats import ImageFormat
from beeq.media.inputs.bounds import check_said
from beeq.media.inputs.examine import examine
from beeq.media.inputs.facts import Video, picture_of
from beeq.media.outputs.colours import decoded_by, to_image
from beeq.media.outputs.film import deinterlaced, of_one_size
from beeq.media.paths import NewFile, OpenFile

_FIRST_WINDOW_S = 4.0
#: Each window is so much wider that the empty ones before it hardly count.
_WIDENING = 4.0
#: The widest but the whole file: 18 hours.
_MOST_WINDOWS = 8


async def extract_last_frame(
    work: MediaWork, sources: Sequence[OpenFile], target: NewFile, image: ImageFormat
) -> None:
    """Write the last picture of the one source as a viewer sees it: turned, and in square pixels."""
    (source,) = sources
    ffmpeg = work.ffmpeg
    facts = await examine(ffmpeg, source, work.parameters)
    video = picture_of(source, facts)
    work.reach(10)
    window = await _last_window(ffmpeg, source, video, facts.duration_s)
    work.reach(60)
    await _write(ffmpeg, source, (target, image), video, (*window, facts.duration_s))
    work.reach(90)


def windows(duration_s: float | None) -> Iterator[tuple[str, ...]]:
    """Yield the options that make ffmpeg start near the end, then further from it, at last at 0."""
    window_s = _FIRST_WINDOW_S
    for _ in range(_MOST_WINDOWS):
        if duration_s is None or window_s >= duration_s:
            break
        yield ("-ss", f"{duration_s - window_s:.3f}")
        window_s *= _WIDENING
    yield ()


async def _last_window(
    ffmpeg: FFmpeg, source: OpenFile, video: Video, duration_s: float | None
) -> tuple[tuple[str, ...], int]:
    """Return the options of the narrowest window that holds pictures, and their number."""
    for seek in windows(duration_s):
        picked = [*ffmpeg.reading(source, *seek), "-map", f"0:{video.index}"]
        if seek:
            # Copying starts at a key frame. In a window without one, as a transport stream may have,
            # pictures would be decoded from others that are missing.
            copying = [*picked, "-c", "copy", "-f", "null", "-"]
            copied = await ffmpeg.run(copying, [source.fd], media_s=duration_s)
            if not copied.frames:
                continue
        # The output counts, not the exit status: damaged input may end ffmpeg with an error after all.
        decoded = await ffmpeg.run([*picked, "-f", "null", "-"], [source.fd], media_s=duration_s)
        check_said(ffmpeg.limits, [source.given], decoded)
        if decoded.frames:
            return seek, decoded.frames
    if decoded.is_out_of_memory:
        raise ffmpeg.out_of_memory(source.given)
    raise MediaFailed(f"{shown(source.given)} has no picture that can be decoded: {decoded.fault}")


async def _write(
    ffmpeg: FFmpeg,
    source: OpenFile,
    output: tuple[NewFile, ImageFormat],
    video: Video,
    window: tuple[tuple[str, ...], int, float | None],
) -> None:
    (target, image), (seek, count, duration_s) = output, window
    # At time 0: ffmpeg would put copies of a later picture before it.
    shown = to_image(video, video.shown_size, image.pixels)
    last = f"select=gte(n\\,{count - 1})"
    filters = [f"{of_one_size(video)}{deinterlaced(video)}{last}", "setpts=0", shown, "setsar=1"]
    written = await ffmpeg.run(
        [
            *ffmpeg.reading(source, *decoded_by(video), *seek),
            *("-map", f"0:{video.index}", "-vf", ",".join(filters), "-frames:v", "1"),
            *(*image.encoder, *ffmpeg.encoding(), "-f", "image2", "-update", "1", target.url),
        ],
        [source.fd, target.fd],
        media_s=duration_s,
    )
    if not target.reading(image.demuxer).size():
        raise ffmpeg.failure([source.given, target.given], written)
