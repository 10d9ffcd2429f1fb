"""Checks this machine for the built-in media jobs: ffmpeg, and its confinement."""

import re

from beeq.media.errors import MediaFailed
from beeq.media.ffmpeg import find_ffmpeg
from beeq.media.sandbox.confinement import confinement_of
from beeq.operations.diagnosis.findings import Finding
from beeq.redis.urls import redact

#: The oldest ffmpeg that the tests pass with.
_TESTED = (5, 1)


async def check_machine() -> list[Finding]:
    """Return the findings on ffmpeg here; a missing one is only a note, because only media jobs need it."""
    try:
        confinement = await confinement_of(find_ffmpeg())
    except MediaFailed as error:
        text = f"no media jobs can run here: {redact(str(error))}"
        return [Finding("ffmpeg", text, is_problem="too old" in text)]
    found = [Finding("sandbox", line, is_problem=False) for _level, line in confinement.lines()[1:]]
    numbers = re.match(r"n?(\d+)\.(\d+)", confinement.version or "")
    if numbers is not None and tuple(map(int, numbers.groups())) < _TESTED:
        tested = ".".join(map(str, _TESTED))
        text = f"ffmpeg {confinement.version} is older than {tested}, the oldest that beeq is tested with"
        found.append(Finding("ffmpeg", text, is_problem=False))
    return found
