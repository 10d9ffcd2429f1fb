"""A job as a line for a person, and as an object for a program."""

import time
from datetime import UTC, datetime
from typing import Any

from beeq import FoundJob, Job
from beeq.protocol.codec import dumps_shown
from beeq_cli.quantities import show_duration

_LONGEST_TEXT = 100


def found_object(queue_name: str, found: FoundJob[Job]) -> dict[str, Any]:
    """Return what ``--json`` prints of a job that was found."""
    job = found.job
    return {
        "id": job.id,
        "queue": queue_name,
        "state": found.state,
        "created": found.created_ms,
        "due": found.due_ms,
        "error": found.error or None,
        "data": job.data,
        "options": job.options,
        "progress": job.progress,
    }


def found_line(found: FoundJob[Job]) -> str:
    """Return id, state, age, and the error or else the data, as far as there is room; not yet escaped."""
    when = age(found.created_ms) if found.due_ms is None else f"due {moment(found.due_ms)}"
    text = found.error or dumps_shown(found.job.data).decode(errors="replace")
    cut = text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
    return f"{found.job.id}  {found.state}  {when}  {cut}"


def age(at_ms: float) -> str:
    """Return how long ago that was; "?" if unknown."""
    passed_ms = round(time.time() * 1000 - at_ms)
    return "?" if at_ms <= 0 else f"{show_duration(max(0, passed_ms))} ago"


def moment(at_ms: float) -> str:
    """Return the time, in this machine's zone; an impossible one as it is."""
    try:
        local = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone()
    except (OverflowError, OSError, ValueError):
        return f"{at_ms:.16g} ms"
    return local.isoformat(sep=" ", timespec="seconds")
