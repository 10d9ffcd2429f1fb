"""Makes h11 read header lines and chunk sizes in one pass, with any content. No IO, no clock.

h11 parses HTTP for httpcore and for uvicorn. Two of its expressions try every division of a run of blanks
between two neighbouring parts before they reject a line: a header line of 90 KB of blanks and a zero byte
takes 19 s, in which no other thread runs. The expressions here match the same lines with the same groups,
without backtracking over blanks. They apply to everything that this process parses by h11.
"""

import logging
import re

from h11 import _abnf, _readers
from h11._version import __version__

logger = logging.getLogger("beeq.webhooks")

#: h11's expressions; a changed one may mean something else, and is left alone.
KNOWN_HEADER_FIELD = (
    r"(?P<field_name>[-!#$%&'*+.^_`|~0-9a-zA-Z]+):[ \t]*"
    r"(?P<field_value>([^\x00\s]+(?:[ \t]+[^\x00\s]+)*)?)[ \t]*"
)
KNOWN_CHUNK_HEADER = r"(?P<chunk_size>([0-9A-Fa-f]){1,20})(?P<chunk_ext>;.*)?[ \t]*\r\n"
HEADER_FIELD = re.compile(
    rb"(?P<field_name>[-!#$%&'*+.^_`|~0-9a-zA-Z]++):[ \t]*+"
    rb"(?P<field_value>([^\x00\s]++(?:[ \t]++[^\x00\s]++)*+)?)[ \t]*+"
)
#: An extension goes on to the line's end, with the blanks in front of that.
CHUNK_HEADER = re.compile(
    rb"(?P<chunk_size>([0-9A-Fa-f]){1,20})(?P<chunk_ext>;[^\r\n]*+(?:\r(?!\n)[^\r\n]*+)*+)?[ \t]*+\r\n"
)


def read_lines_in_one_pass() -> None:
    """Install these expressions in h11; calling it again changes nothing.

    A version of h11 with other expressions than the known ones is left alone, with a warning.
    """
    if (_abnf.header_field, _abnf.chunk_header) != (KNOWN_HEADER_FIELD, KNOWN_CHUNK_HEADER):
        logger.warning(
            "h11 %s reads header lines in a way that is not known here: one of many blanks may take long",
            __version__,
        )
        return
    _readers.header_field_re = HEADER_FIELD
    _readers.chunk_header_re = CHUNK_HEADER
