"""Finds out what an input is: reads all its packets, and decodes the first picture and sound of each stream.

Only what can be decoded is a fact: a stream without packets, encrypted, zeroed or of a codec that this ffmpeg
does not know is set apart with the reason. A file of which a part is missing is refused, unless its job
allows it. Two runs of ffmpeg an input, neither of which decodes more than it must; a stream without a single
picture or sound that can be decoded is tried to its end.
"""

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from beeq.jobs import MediaParameters
from beeq.media.errors import MediaFailed, MediaRefused, shown
from beeq.media.ffmpeg import Run, out_of_memory, reading, run
from beeq.media.inputs.bounds import check_said, check_streams
from beeq.media.inputs.completeness import Read, missing_bytes
from beeq.media.inputs.encryption import encrypted_tracks
from beeq.media.inputs.facts import Audio, Facts, Unusable, Video
from beeq.media.inputs.probe import parse
from beeq.media.inputs.timeline import PacketReader, kind_of
from beeq.media.paths import OpenFile

_PLAIN = MediaParameters()
_NEVER_SAY = ("mpegts", "wav", "aiff", "caf")
#: All pictures and sounds but covers; an input without any of them makes ffmpeg fail, and its log is read.
_ALL = ("-map", "0:V?", "-map", "0:a?")
_MAPPED = re.compile(r"^ {2}Stream #0:(\d+) -> #0:(\d+) \(", re.MULTILINE)
#: ffmpeg's words for reading less than a container's index promises. Of a transport stream, "corrupt" is a
#: flag that packets carry, and of these sounds, the end of a file whose header was never finished.
_CUT = re.compile(r"partial file|File ended prematurely")
_CUT_OR_CORRUPT = re.compile(rf"{_CUT.pattern}|Packet corrupt")
#: A stream of which too little is known makes the whole copy fail.
_NOT_SET = re.compile(r"dimensions not set|sample rate not set")
#: The decoder has made up for what it could not read: the picture may be nothing but that.
_CONCEALED = re.compile(r"concealing \d+ DC")
#: What says of a decoder that it can never do it.
_CANNOT = re.compile(
    r"not implemented|Decoder .*not found|Unknown decoder|unsupported|No decoder", re.IGNORECASE
)
_BROKEN_TABLES = "its index is missing or broken"
_NOTHING = "its track holds nothing that can be decoded"
#: Examined at once.
_AT_ONCE = 2
#: A sound whose length its header gives may lack this much: a last packet is not always counted.
_SLACK_S = 0.25
_COUNTED = ("mp3", "flac")


async def examine(file: OpenFile, parameters: MediaParameters = _PLAIN) -> Facts:
    """Return a file's facts, with the streams' timelines.

    Raises MediaRefused if a part of the file is missing (see ``MediaParameters.allow_broken``), or if nothing
    in it can be decoded; MediaFailed if it could not be read by a fault of the system's.
    """
    packets = PacketReader(file.given)
    copied = await _copy(file, _ALL, packets)
    check_said([file.given], copied.log)
    if _NOT_SET.search(copied.log):
        # Without the streams of which too little is known.
        known = [f"0:{stream.index}" for stream in parse(copied.log).streams if _is_described(stream)]
        packets = PacketReader(file.given)
        copied = await _copy(file, [word for name in known for word in ("-map", name)], packets)
    declared = parse(copied.log)
    check_streams(file, declared)
    if not parameters.allow_broken:
        _check_whole(file, declared, copied.log, packets)
    if not declared.streams:
        raise _unreadable(file, copied)
    places = _places(copied.log)
    streams = [_timed(stream, copied.log, places, packets) for stream in declared.streams]
    reasons = await _reasons(file, streams, packets, places)
    usable = tuple(stream for stream in streams if stream.index not in reasons)
    unusable = tuple(Unusable(stream, reasons[stream.index]) for stream in streams if stream.index in reasons)
    if not parameters.allow_broken:
        _check_zeros(file, usable, packets, places)
    ends = [times.shown_end_s for stream in streams if (times := stream.timeline) and times.shown_end_s]
    facts = Facts(declared.duration_s or max(ends, default=None), usable, unusable)
    if not any(not _is_cover(stream) for stream in usable):
        why = unusable[0].reason if unusable else "it has neither picture nor sound"
        raise MediaRefused(f"{shown(file.given)} cannot be decoded: {why}")
    return facts


async def examine_all(
    files: Sequence[OpenFile], parameters: MediaParameters, reach: Callable[[float], None] = lambda _: None
) -> list[Facts]:
    """Return the facts of several files, in order; ``reach`` is called with the percentage done.

    Raises the error of the first in order that has one.
    """
    turns, done = asyncio.Semaphore(_AT_ONCE), 0

    async def examine_one(file: OpenFile) -> Facts:
        nonlocal done
        async with turns:
            facts = await examine(file, parameters)
        done += 1
        reach(100 * done / len(files))
        return facts

    found = await asyncio.gather(*map(examine_one, files), return_exceptions=True)
    for item in found:
        if isinstance(item, BaseException):
            raise item
    return [item for item in found if isinstance(item, Facts)]


async def _copy(file: OpenFile, mapped: Iterable[str], packets: PacketReader) -> Run:
    # The output counts, not the exit status: a damaged end makes ffmpeg fail after all that can be used.
    copying = [*mapped, "-c", "copy", "-f", "framecrc", "pipe:1"]
    return await run([*reading(file), *copying], [file.fd], log_level="info", on_output=packets.feed)


def _reader(file: OpenFile) -> Read:
    """Return what reads from a file, by the offset in its content and the size."""
    return lambda place, count: os.pread(file.fd, count, file.begin + place)


def _places(log: str) -> dict[int, int]:
    """Return the output stream's index by the input stream's."""
    return {int(source): int(place) for source, place in _MAPPED.findall(log)}


def _timed(stream: Video | Audio, log: str, places: dict[int, int], packets: PacketReader) -> Video | Audio:
    place = places.get(stream.index)
    times = None if place is None else packets.timeline(place, kind_of(log, stream.index))
    return replace(stream, timeline=times)


def _is_cover(stream: Video | Audio) -> bool:
    return isinstance(stream, Video) and stream.is_cover


def _is_described(stream: Video | Audio) -> bool:
    if isinstance(stream, Video):
        return stream.width > 0 and not stream.is_cover
    return stream.sample_rate > 0


def _check_whole(file: OpenFile, declared: Facts, log: str, packets: PacketReader) -> None:
    """Raise MediaRefused if a part of the file is missing."""
    size = file.size() - file.begin
    lacking = missing_bytes(file.demuxer, size, _reader(file))
    if lacking:
        whole = size + lacking
        raise _broken(file, f"the last {lacking} of {whole} bytes ({round(100 * lacking / whole) or 1} %)")
    cut = _CUT if file.demuxer in _NEVER_SAY else _CUT_OR_CORRUPT
    if lacking is None or cut.search(log):
        raise _broken(file, "its end")
    if not declared.streams and "moov atom not found" in log:
        raise _broken(file, "its index (moov), which comes last")
    times = packets.timeline(0)
    if file.demuxer in _COUNTED and times and declared.duration_s and "Estimating duration" not in log:
        left_s = declared.duration_s - times.end_s
        if left_s > _SLACK_S:
            raise _broken(file, f"the last {left_s:.1f} of {declared.duration_s:.1f} s")


def _check_zeros(
    file: OpenFile, usable: Iterable[Video | Audio], packets: PacketReader, places: dict[int, int]
) -> None:
    for stream in usable:
        place = places.get(stream.index)
        zeroed = 0 if place is None or _may_be_zero(stream) else packets.zeroed(place)
        if zeroed and stream.timeline is not None:
            raise _broken(
                file, f"{zeroed} of the {stream.timeline.count} packets of a stream, which hold zeros"
            )


def _may_be_zero(stream: Video | Audio) -> bool:
    """Return whether zeros are black or silence in a codec."""
    return stream.codec.startswith(("pcm_", "adpcm_", "dsd_", "rawvideo"))


def _broken(file: OpenFile, what: str) -> MediaRefused:
    return MediaRefused(
        f"a part of {shown(file.given)} is missing: {what}; parameters.allowBroken takes what is there"
    )


def _unreadable(file: OpenFile, copied: Run) -> MediaFailed | MediaRefused:
    if "Input #0" in copied.log:
        return MediaRefused(f"{shown(file.given)} cannot be read: it has neither picture nor sound")
    if copied.is_out_of_memory:
        return out_of_memory(file.given)
    if copied.is_systems_fault:
        return MediaFailed(f"{shown(file.given)} cannot be read: {copied.fault}")
    why = _BROKEN_TABLES if file.demuxer == "mov" else copied.fault
    return MediaRefused(f"{shown(file.given)} cannot be read: {why}")


async def _reasons(
    file: OpenFile, streams: Sequence[Video | Audio], packets: PacketReader, places: dict[int, int]
) -> dict[int, str]:
    """Return why streams cannot be decoded, by their indices."""
    encrypted = encrypted_tracks(file.demuxer, file.size(), _reader(file))
    reasons: dict[int, str] = {}
    tried = list[Video | Audio]()
    for stream in streams:
        if _is_cover(stream):
            continue
        place = places.get(stream.index)
        if stream.index in encrypted:
            reasons[stream.index] = "it is encrypted"
        elif place is None or stream.timeline is None:
            reasons[stream.index] = _NOTHING
        elif not _may_be_zero(stream) and packets.zeroed(place) == stream.timeline.count:
            reasons[stream.index] = "it holds nothing but zeros"
        else:
            tried.append(stream)
    if tried:
        reasons |= await _tried(file, tried)
    return reasons


async def _tried(file: OpenFile, streams: Sequence[Video | Audio]) -> dict[int, str]:
    decoded, log = await _decode(file, streams)
    if len(decoded) == len(streams) and not _CONCEALED.search(log):
        return {}
    if len(streams) > 1:
        # One at a time: a stream that cannot be decoded may end the run before the others have been.
        alone = [await _tried(file, [stream]) for stream in streams]
        return {index: reason for reasons in alone for index, reason in reasons.items()}
    (stream,) = streams
    if decoded:
        strictly, log = await _decode(file, streams, "-err_detect", "explode")
        if strictly:
            return {}
    return {stream.index: _why(stream, log)}


async def _decode(file: OpenFile, streams: Sequence[Video | Audio], *options: str) -> tuple[set[int], str]:
    """Decode the first picture or sound of streams; return which have one, by index, and the log."""
    packets = PacketReader(file.given)
    mapped = [word for stream in streams for word in ("-map", f"0:{stream.index}")]
    ended = await run(
        [
            *reading(file, "-noautorotate", *options),
            *(*mapped, "-frames:v", "1", "-frames:a", "1", "-f", "framecrc", "pipe:1"),
        ],
        [file.fd],
        log_level="info",
        on_output=packets.feed,
    )
    if ended.is_out_of_memory:
        raise out_of_memory(file.given)
    if ended.is_systems_fault:
        raise MediaFailed(f"{shown(file.given)} cannot be read: {ended.fault}")
    return {stream.index for place, stream in enumerate(streams) if packets.timeline(place)}, ended.log


def _why(stream: Video | Audio, log: str) -> str:
    if stream.codec == "none" or _CANNOT.search(log):
        return f"codec {_codec_name(stream, log)} cannot be decoded by this ffmpeg"
    return f"nothing in its {stream.codec} stream can be decoded"


def _codec_name(stream: Video | Audio, log: str) -> str:
    """Return the codec's name, with the tag or the kind that the log says of it."""
    found = re.search(
        rf"^ {{2,4}}Stream #0:{stream.index}\b[^ ]*: \w+: (\w+(?: \([^)/]+(?: /[^)]*)?\))*)",
        log,
        re.MULTILINE,
    )
    kind = re.search(r"Audio object type (\d+)", log)
    name = found[1] if found else stream.codec
    return f"{name}, audio object type {kind[1]}" if kind else name
