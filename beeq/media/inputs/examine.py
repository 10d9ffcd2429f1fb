"""Finds out what an input is: reads all its packets, and decodes the first picture and sound of each stream.

Only what can be decoded is a fact: a stream without packets, encrypted, zeroed or of a codec that this ffmpeg
does not know is set apart with the reason. A file of which a part is missing is refused, unless its job
allows it. Two runs of ffmpeg an input, neither of which decodes more than it must; a stream without a single
picture or sound that can be decoded is tried to its end.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from beeq.jobs import MediaParameters
from beeq.media.errors import MediaFailed, MediaRefused, shown
from beeq.media.ffmpeg import FFmpeg, Run
from beeq.media.inputs.bounds import check_said, check_streams
from beeq.media.inputs.container import ContainerFacts, container_facts
from beeq.media.inputs.dump import Described, described, describing, new_mark
from beeq.media.inputs.facts import Audio, Facts, Unusable, Video
from beeq.media.inputs.probe import streams_of
from beeq.media.inputs.timeline import PacketReader
from beeq.media.paths import OpenFile

_PLAIN = MediaParameters()
_NEVER_SAY = ("mpegts", "wav", "aiff", "caf")
#: All pictures and sounds but covers; an input without any of them makes ffmpeg fail, and its log is read.
_ALL = ("-map", "0:V?", "-map", "0:a?")
#: Those of which enough is known to copy them.
_KNOWN = ("-map", "0:V:u?", "-map", "0:a:u?")
#: ffmpeg's words for reading less than a container's index promises. Of a transport stream, "corrupt" is a
#: flag that packets carry, and of these sounds, the end of a file whose header was never finished.
_CUT = re.compile(r"stream \d{1,6}, offset 0x[0-9a-f]{1,16}: partial file|File ended prematurely")
_CUT_OR_CORRUPT = re.compile(rf"{_CUT.pattern}|Packet corrupt \(")
#: A stream of which too little is known makes the whole copy fail.
_NOT_SET = {
    Video: re.compile(r"dimensions not set"),
    Audio: re.compile(r"sample rate not set"),
}
_NO_INDEX = re.compile(r"moov atom not found")
_NO_STREAM = re.compile(r"Output file (?:#\d+ )?does not contain any stream")
_OBJECT_TYPE = re.compile(r"Audio object type (\d{1,4})")
#: The decoder has made up for what it could not read: the picture may be nothing but that.
_CONCEALED = re.compile(r"concealing \d+ DC")
#: A message that the decoder can never do it; a text in the file could at most change the kind of refusal.
_CANNOT = re.compile(
    r"not implemented|Decoder .*not found|Unknown decoder|unsupported|No decoder", re.IGNORECASE
)
#: … and of one that is not in the list.
_NOT_ALLOWED = re.compile(r"Codec \(\S+\) not on whitelist ")
_BROKEN_TABLES = "its index is missing or broken"
_NOTHING = "its track holds nothing that can be decoded"
#: Examined at once.
_AT_ONCE = 2
#: A sound whose length its header gives may lack this much: a last packet is not always counted.
_SLACK_S = 0.25
#: Codecs of which a second picture, beside the one that is described, holds the transparency.
_MAY_BE_BESIDE, _OPAQUE = ("vp8", "vp9"), "yuv420p"


@dataclass(frozen=True, slots=True)
class _Copied:
    """The results of copying an input's packets."""

    run: Run
    streams: Sequence[Video | Audio]
    packets: PacketReader
    described: Mapping[int, Described]  # by the streams' indices


async def examine(ffmpeg: FFmpeg, file: OpenFile, parameters: MediaParameters = _PLAIN) -> Facts:
    """Return a file's facts, with the streams' timelines.

    Raises MediaRefused if a part of the file is missing (see ``MediaParameters.allow_broken``), or if nothing
    in it can be decoded; MediaFailed if it could not be read by a fault of the system's.
    """
    copied, lost = await _surveyed(ffmpeg, file)
    streams = copied.streams
    container = await container_facts(file, ffmpeg.limits.max_streams)
    if not parameters.allow_broken:
        _check_whole(file, copied, container)
    if not streams:
        raise _unreadable(ffmpeg, file, copied.run)
    reasons = await _reasons(ffmpeg, file, copied, container.encrypted)
    usable = tuple(stream for stream in streams if stream.index not in reasons)
    unusable = [Unusable(stream, reasons[stream.index]) for stream in streams if stream.index in reasons]
    unusable += [Unusable(_nothing(kind), _NOTHING) for kind in lost]
    if not parameters.allow_broken:
        _check_zeros(file, usable, copied)
    facts = Facts(_length_s(streams), usable, tuple(unusable))
    if not usable:
        why = unusable[0].reason if unusable else "it has neither picture nor sound"
        raise MediaRefused(f"{shown(file.given)} cannot be decoded: {why}")
    return facts


async def measure(ffmpeg: FFmpeg, file: OpenFile) -> Facts:
    """Return what a file declares of its streams, and how long they are by their packets. Decodes nothing.

    Raises MediaRefused if it is beyond the limits, MediaFailed if ffmpeg finds neither picture nor sound.
    """
    copied, _ = await _surveyed(ffmpeg, file)
    if not copied.streams:
        raise MediaFailed(f"{shown(file.given)} cannot be read: {copied.run.fault}")
    length_s = _length_s(copied.streams)
    return Facts(None if length_s is None else round(length_s, 3), tuple(copied.streams))


async def examine_all(
    ffmpeg: FFmpeg,
    files: Sequence[OpenFile],
    parameters: MediaParameters,
    reach: Callable[[float], None] = lambda _: None,
) -> list[Facts]:
    """Return the facts of several files, in order; ``reach`` is called with the percentage done.

    Raises the error of the first in order that has one.
    """
    turns, done = asyncio.Semaphore(_AT_ONCE), 0

    async def examine_one(file: OpenFile) -> Facts:
        nonlocal done
        async with turns:
            facts = await examine(ffmpeg, file, parameters)
        done += 1
        reach(100 * done / len(files))
        return facts

    found = await asyncio.gather(*map(examine_one, files), return_exceptions=True)
    for item in found:
        if isinstance(item, BaseException):
            raise item
    return [item for item in found if isinstance(item, Facts)]


async def _surveyed(ffmpeg: FFmpeg, file: OpenFile) -> tuple[_Copied, list[type[Video | Audio]]]:
    """Return what an input's packets show, and the kinds of its streams of which too little is known.

    Raises MediaRefused if the file is beyond the limits by what is seen of it.
    """
    copied = await _copied(ffmpeg, file, _ALL)
    check_said(ffmpeg.limits, [file.given], copied.run)
    lost = [kind for kind, fault in _NOT_SET.items() if copied.run.complains(fault)]
    if lost:
        copied = await _copied(ffmpeg, file, _KNOWN)
    check_streams(ffmpeg.limits, file, Facts(None, tuple(copied.streams)))
    return copied, lost


def _length_s(streams: Iterable[Video | Audio]) -> float | None:
    """Return how long the longest of some streams is."""
    times = [stream.timeline for stream in streams if stream.timeline is not None]
    return max((each.shown_end_s or each.end_s - each.begin_s for each in times), default=None)


async def _copied(ffmpeg: FFmpeg, file: OpenFile, mapped: Iterable[str]) -> _Copied:
    """Copy the packets of an input's streams to see them, and have ffmpeg describe the streams."""
    # The output counts, not the exit status: a damaged end makes ffmpeg fail after all that can be used.
    packets, mark = PacketReader(ffmpeg.limits, file.given), new_mark()
    copying = [*mapped, "-c", "copy", *describing(mark), "-f", "framecrc", "pipe:1"]
    ended = await ffmpeg.run(
        [*ffmpeg.reading(file), *copying], [file.fd], log_level="info", on_output=packets.feed, mark=mark
    )
    found = {stream.index: stream for stream in described(ended.said, mark)}
    streams = [
        _with_packets(stream, packets, found[stream.index]) for stream in streams_of(file, [*found.values()])
    ]
    return _Copied(ended, streams, packets, found)


def _with_packets(stream: Video | Audio, packets: PacketReader, found: Described) -> Video | Audio:
    """Return a stream with what its packets say of it."""
    timeline = packets.timeline(found.place, found.alike)
    if (
        isinstance(stream, Video)
        and stream.codec in _MAY_BE_BESIDE
        and stream.pixel_format == _OPAQUE
        and packets.has_side_data(found.place)
    ):
        return replace(stream, timeline=timeline, has_alpha=True)
    return replace(stream, timeline=timeline)


def _nothing(kind: type[Video | Audio]) -> Video | Audio:
    """Return a stream of which only the kind is known."""
    return Video(-1, "none", 0, 0) if kind is Video else Audio(-1, "none", 0, None)


def _check_whole(file: OpenFile, copied: _Copied, container: ContainerFacts) -> None:
    """Raise MediaRefused if a part of the file is missing."""
    lacking, length_s = container.lacking_bytes, container.length_s
    if lacking:
        whole = file.size() - file.begin + lacking
        raise _broken(file, f"the last {lacking} of {whole} bytes ({round(100 * lacking / whole) or 1} %)")
    cut = _CUT if file.demuxer in _NEVER_SAY else _CUT_OR_CORRUPT
    if lacking is None or copied.run.complains(cut):
        raise _broken(file, "its end")
    if not copied.streams and copied.run.complains(_NO_INDEX):
        raise _broken(file, "its index (moov), which comes last")
    times = copied.packets.timeline(0)
    if length_s and times and length_s - times.end_s > _SLACK_S:
        raise _broken(file, f"the last {length_s - times.end_s:.1f} of {length_s:.1f} s")


def _check_zeros(file: OpenFile, usable: Iterable[Video | Audio], copied: _Copied) -> None:
    for stream in usable:
        zeroed = 0 if _may_be_zero(stream) else copied.packets.zeroed(copied.described[stream.index].place)
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


def _unreadable(ffmpeg: FFmpeg, file: OpenFile, ended: Run) -> MediaFailed | MediaRefused:
    if ended.complains(_NO_STREAM):
        return MediaRefused(f"{shown(file.given)} cannot be read: it has neither picture nor sound")
    if ended.is_out_of_memory:
        return ffmpeg.out_of_memory(file.given)
    if ended.is_systems_fault:
        return MediaFailed(f"{shown(file.given)} cannot be read: {ended.fault}")
    why = _BROKEN_TABLES if file.demuxer == "mov" else ended.fault
    return MediaRefused(f"{shown(file.given)} cannot be read: {why}")


async def _reasons(
    ffmpeg: FFmpeg, file: OpenFile, copied: _Copied, encrypted: frozenset[int]
) -> dict[int, str]:
    """Return why streams cannot be decoded, by their indices."""
    reasons: dict[int, str] = {}
    tried = list[Described]()
    for stream in copied.streams:
        found = copied.described[stream.index]
        if stream.index in encrypted:
            reasons[stream.index] = "it is encrypted"
        elif stream.timeline is None:
            reasons[stream.index] = _NOTHING
        elif not _may_be_zero(stream) and copied.packets.zeroed(found.place) == stream.timeline.count:
            reasons[stream.index] = "it holds nothing but zeros"
        else:
            tried.append(found)
    if tried:
        reasons |= await _tried(ffmpeg, file, tried)
    return reasons


async def _tried(ffmpeg: FFmpeg, file: OpenFile, streams: Sequence[Described]) -> dict[int, str]:
    decoded, ended = await _decode(ffmpeg, file, streams)
    if len(decoded) == len(streams) and not ended.complains(_CONCEALED):
        return {}
    if len(streams) > 1:
        # One at a time: a stream that cannot be decoded may end the run before the others have been.
        alone = [await _tried(ffmpeg, file, [stream]) for stream in streams]
        return {index: reason for reasons in alone for index, reason in reasons.items()}
    (stream,) = streams
    if decoded:
        strictly, ended = await _decode(ffmpeg, file, streams, "-err_detect", "explode")
        if strictly:
            return {}
    return {stream.index: _why(stream, ended)}


async def _decode(
    ffmpeg: FFmpeg, file: OpenFile, streams: Sequence[Described], *options: str
) -> tuple[set[int], Run]:
    """Decode the first picture or sound of streams; return which have one, by index, and the run."""
    packets = PacketReader(ffmpeg.limits, file.given)
    mapped = [word for stream in streams for word in ("-map", f"0:{stream.index}")]
    ended = await ffmpeg.run(
        [
            *ffmpeg.reading(file, "-noautorotate", *options),
            *(*mapped, "-frames:v", "1", "-frames:a", "1", "-f", "framecrc", "pipe:1"),
        ],
        [file.fd],
        log_level="warning",
        on_output=packets.feed,
    )
    decoded = {stream.index for place, stream in enumerate(streams) if packets.timeline(place)}
    # ffmpeg may end well after a picture for which there was no memory.
    if ended.is_out_of_memory or (not decoded and any(each.is_of_memory for each in ended.complaints)):
        raise ffmpeg.out_of_memory(file.given)
    if ended.is_systems_fault:
        raise MediaFailed(f"{shown(file.given)} cannot be read: {ended.fault}")
    return decoded, ended


def _why(stream: Described, ended: Run) -> str:
    """Return why nothing of a stream can be decoded, by what ffmpeg complains of."""
    if ended.complains(_NOT_ALLOWED):
        return f"codec {stream.codec} is not one that beeq decodes"
    name = stream.name
    if name != "none" and not any(_CANNOT.search(each.text) for each in ended.complaints):
        return f"nothing in its {name} stream can be decoded"
    kinds = [kind[1] for each in ended.complaints if (kind := _OBJECT_TYPE.search(each.text))]
    more = f", audio object type {kinds[0]}" if kinds else ""
    return f"codec {stream.codec}{more} cannot be decoded by this ffmpeg"
