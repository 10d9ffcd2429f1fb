"""Reads how ffmpeg describes the streams of an input: in its description of an output that copies them.

The description of the input itself holds titles, tags and languages, whose names may be any text, line breaks
included. The output gets none of them (``UNTITLED``), and a random mark separates the fields of each of its
streams; it is chosen for the run, so no file can know it. Lines without it are ignored, except those that
ffmpeg writes right beside them: which stream is a copy of which, and the side data of a stream.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from beeq.media.ffmpeg import UNTITLED

_STREAM = re.compile(r"  Stream #0:(\d{1,6})(?:\[0x[0-9a-f]+\])?: (Video|Audio): (.*)")
_DETAIL = "    "
_MAPPING = re.compile(r"  Stream #0:(\d{1,6}) -> #0:(\d{1,6}) \(copy\)")
_MAPPED, _OUTPUT = "Stream mapping:", "Output #0, "
#: What may differ between streams of one kind: bit rate, start, disposition.
_INDIVIDUAL = re.compile(r", q=\d+-\d+|, \d+ kb/s|, start -?[\d.]+|( \([a-z ]+\))+$")
_SIDE_DATA = "    Side data:"
#: A cover, which is not a stream to play: ffmpeg takes it if there is nothing else.
_COVER = "(attached pic)"
_NAME = re.compile(r"\w+(?: \([^)/]+(?: /[^)]*)?\))*")


@dataclass(frozen=True, slots=True)
class Described:
    """A stream, in ffmpeg's words: its index in the input and in the output, kind, fields, further lines."""

    index: int
    place: int
    kind: str  # ``Video`` or ``Audio``
    text: str
    details: Sequence[str] = ()

    @property
    def alike(self) -> str:
        """The text without what may differ within a kind of streams.

        Empty if the stream has side data, which are not in its packets.
        """
        if _SIDE_DATA in self.details:
            return ""
        return f"{self.kind}: {_INDIVIDUAL.sub('', self.text)}"

    @property
    def codec(self) -> str:
        """The codec's name, with its profile and tag."""
        found = _NAME.match(self.text)
        return found[0] if found else "none"

    @property
    def name(self) -> str:
        """The codec's name alone; ``none`` if ffmpeg does not know it."""
        return self.codec.partition(" ")[0]


def new_mark() -> str:
    """Return a mark for one run."""
    return f" |{secrets.token_hex(16)}| "


def describing(mark: str) -> list[str]:
    """Return the options of an output (``-c copy``) that make ffmpeg describe its streams with a mark."""
    return [*UNTITLED, "-dump_separator", mark]


def described(said: str, mark: str) -> list[Described]:
    """Return the streams that a run has described with the mark, covers left out; none if it did not.

    ``said`` is ``Run.said``.
    """
    lines = said.split("\n")
    first = next((number for number, line in enumerate(lines) if mark in line), None)
    if first is None:
        return []
    begin, end = first, first
    while begin and lines[begin].startswith("  "):
        begin -= 1
    while end < len(lines) and lines[end].startswith("  "):
        end += 1
    if not lines[begin].startswith(_OUTPUT):
        return []
    # ffmpeg 5 says which stream is which behind the description, later ones before it.
    is_behind = lines[end : end + 1] == [_MAPPED]
    sources = _sources(lines[end:] if is_behind else _last_of(lines[:begin]))
    found, details = list[Described](), list[str]()
    for line in lines[first:end]:
        if mark in line and (match := _STREAM.fullmatch(line)):
            if int(match[1]) not in sources:
                return []
            details = []
            text = match[3].replace(mark, ", ")
            found.append(Described(sources[int(match[1])], int(match[1]), match[2], text, details))
        elif line.startswith(_DETAIL):
            details.append(line)
    return [stream for stream in found if _COVER not in stream.text]


def _last_of(lines: Sequence[str]) -> Sequence[str]:
    """Return the lines from the last title of a mapping on."""
    titles = [number for number, line in enumerate(lines) if line == _MAPPED]
    return lines[titles[-1] :] if titles else []


def _sources(lines: Sequence[str]) -> dict[int, int]:
    """Return the input's indices by the output's, from a mapping and what follows it."""
    found: dict[int, int] = {}
    for line in lines[1:]:
        match = _MAPPING.fullmatch(line)
        if match is None:
            break
        found[int(match[2])] = int(match[1])
    return found
