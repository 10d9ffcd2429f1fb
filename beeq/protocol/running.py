"""A worker process's notes on itself and its running jobs, in ``beeq:running:<worker>``.

The hash has a field ``process``, a JSON object, a field ``noted``: when that was written, and for each job a
field ``job:<id>``: since when it runs; both in ms by Redis's clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from beeq.protocol.codec import dumps, loads
from beeq.protocol.options import SAFE_INTEGER

_PROCESS = b"process"
_NOTED = b"noted"
_JOB = b"job:"


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """A process's facts about its work on one queue. Times are ms since the epoch, by its own clock.

    Attributes:
        version: beeq's.
        started_ms: when it began to work.
        clock_ms: its clock at the time of the note.
        places: how many jobs may run there at once.
        busy: how many run.
        is_taking: whether it takes jobs, or would if the queue were not paused.
        stall_interval_ms: the setting.
        noted_ms: the time of the note, by Redis's clock.
        ahead: how many jobs it has claimed ahead that do not run yet.
    """

    version: str = ""
    started_ms: int | None = None
    clock_ms: int | None = None
    places: int | None = None
    busy: int | None = None
    is_taking: bool | None = None
    stall_interval_ms: int | None = None
    noted_ms: int | None = None
    ahead: int | None = None


def encode_facts(facts: ProcessFacts) -> bytes:
    """Return the text of the field ``process``."""
    return dumps(
        {
            "version": facts.version,
            "started": facts.started_ms,
            "clock": facts.clock_ms,
            "places": facts.places,
            "busy": facts.busy,
            "ahead": facts.ahead,
            "taking": facts.is_taking,
            "stallInterval": facts.stall_interval_ms,
        }
    )


def decode_running(fields: Mapping[bytes, bytes]) -> tuple[ProcessFacts, list[tuple[str, int]]]:
    """Return the process's facts, and id and start of its jobs; fields not written by beeq are unknown."""
    jobs = []
    for field, value in fields.items():
        since = _time_in(value)
        if field.startswith(_JOB) and since is not None:
            jobs.append((field.removeprefix(_JOB).decode(errors="replace"), since))
    try:
        members = loads(fields.get(_PROCESS, b"{}"))
    except ValueError:
        members = {}
    if not isinstance(members, dict):
        members = {}
    version, is_taking = members.get("version"), members.get("taking")
    facts = ProcessFacts(
        version=version if isinstance(version, str) else "",
        started_ms=_number_in(members.get("started")),
        clock_ms=_number_in(members.get("clock")),
        places=_number_in(members.get("places")),
        busy=_number_in(members.get("busy")),
        is_taking=is_taking if isinstance(is_taking, bool) else None,
        stall_interval_ms=_number_in(members.get("stallInterval")),
        noted_ms=_time_in(fields.get(_NOTED, b"")),
        ahead=_number_in(members.get("ahead")),
    )
    return facts, jobs


def _number_in(value: object) -> int | None:
    is_number = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= SAFE_INTEGER
    return value if is_number and isinstance(value, int) else None


def _time_in(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) < len(str(SAFE_INTEGER)) else None
