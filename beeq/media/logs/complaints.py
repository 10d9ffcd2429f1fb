"""Interprets ffmpeg's complaints: the cause, whose fault it is, the input it names. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_SHOWN_LENGTH = 300
#: The operating system's errors are the cause of all other complaints. In the words of several C libraries.
_CAUSES = (
    *("No space left on device", "Permission denied", "Disk quota exceeded", "Disc quota exceeded"),
    *("Quota exceeded", "Input/output error", "I/O error"),
)
#: What is said where the limit of memory was reached; the last: a thread has no room for its stack.
_OUT_OF_MEMORY = (
    *("Cannot allocate memory", "bad_alloc", "Out of memory", "malloc of size", "failed to map segment"),
    *("Failed to allocate", "Resource temporarily unavailable"),
)
_CHANGING_SOUND = "Changing audio frame properties on the fly"
_TOO_LARGE = "File too large"
#: A decoder's context, perhaps behind its stream's: not that of a library, an input, an output or a filter.
_DECODER = re.compile(
    r"(?:[a-z]*ist#\d+:\d+/\S+ @ \w+ )?(?:dec:)?(?!lib|out|in#|Parsed|[afv][cf]#|graph)[a-z0-9_]+ @ "
)
#: Complaints that only say that something went wrong; the last also of streams that nobody asked for.
_GENERAL = (
    *("Conversion failed", "Nothing was written", "Error opening output files"),
    "Failed to open codec in avformat_find_stream_info",
)
_INPUT_CONTEXT = re.compile(r"[vas]?i[sn]t?#(\d{1,6})[:/ ]")
#: The place where an input enters the filters.
_FILTERED_INPUT = re.compile(r"graph_\d{1,6}_in_(\d{1,6})_\d")
_INPUT_NAMED = re.compile(r"Error while decoding stream #(\d{1,6}):")


@dataclass(frozen=True, slots=True)
class Complaint:
    """One warning or error.

    Attributes:
        contexts: which parts of ffmpeg say it, the outer one first, such as ``h264 @ 0x55d8``.
        text: what they say, without control characters; line breaks are spaces.
        is_error: it is more than a warning.
    """

    contexts: tuple[str, ...]
    text: str
    is_error: bool = True

    @property
    def is_the_systems(self) -> bool:
        """Whether it gives an error of the operating system as its cause.

        ffmpeg puts the cause last. Texts of a file may be in a complaint, but not there.
        """
        return self.is_error and self.text.endswith(_CAUSES)

    @property
    def is_of_memory(self) -> bool:
        """Whether it is for want of memory."""
        return self.is_error and any(text in self.text for text in _OUT_OF_MEMORY)

    @property
    def is_of_size(self) -> bool:
        """Whether a file that is written has become too large."""
        return self.is_error and self.text.endswith(_TOO_LARGE)

    @property
    def is_of_changing_sound(self) -> bool:
        """Whether a sound has other properties than before, which filters do not take."""
        return self.text.startswith(_CHANGING_SOUND)

    @property
    def is_a_decoders(self) -> bool:
        """Whether a decoder says it of single packets: hardly ever the cause of a failure."""
        return _DECODER.match(" ".join(self.contexts)) is not None

    @property
    def inputs(self) -> frozenset[int]:
        """The numbers of the inputs that it names."""
        found = [
            match[1]
            for context in self.contexts
            if (match := _INPUT_CONTEXT.match(context) or _FILTERED_INPUT.match(context))
        ]
        named = _INPUT_NAMED.match(self.text)
        return frozenset(map(int, [*found, *([named[1]] if named else [])]))


def cause_of(complaints: Sequence[Complaint]) -> str | None:
    """Return the text of the complaint that most likely gives the cause; None without any."""
    particular = [each for each in complaints if each.text and not each.text.startswith(_GENERAL)]
    said = [each for each in particular if not each.is_a_decoders] or particular
    causes = (each for each in said if each.is_the_systems or each.is_of_memory)
    best = next(causes, said[0] if said else None)
    return best.text[:_SHOWN_LENGTH] if best else None


def blamed_input(complaints: Iterable[Complaint]) -> int | None:
    """Return the number of the one input that is named; None if none is, or several are."""
    found = frozenset[int]().union(*(each.inputs for each in complaints))
    return next(iter(found)) if len(found) == 1 else None
