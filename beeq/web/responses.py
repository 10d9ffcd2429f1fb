"""What is answered: JSON, never cached, written as bee-queue's Node side would write it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from beeq.protocol.codec import dumps

#: Lists and objects within one another. Nobody needs more, and not every JSON library can.
MAX_DEPTH = 100
#: Of a status document.
_FIELDS = (
    *("jobId", "queueName", "status", "jobData", "result", "error"),
    *("projectId", "createdAt", "updatedAt"),
)


class Refusal(Exception):
    """The request is answered with an error.

    Attributes:
        status: of HTTP, 400 or above.
        error: the sentence that the client gets; it repeats nothing of the request's values.
        faults: what is wrong with each field, where fields are.
        headers: further ones of the answer.
    """

    def __init__(
        self,
        status: int,
        error: str,
        *,
        faults: Sequence[str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.faults = faults
        self.headers = dict(headers or {})

    def answer(self) -> Response:
        """Return the answer."""
        content: dict[str, Any] = {"error": self.error}
        if self.faults is not None:
            content["faults"] = list(self.faults)
        return json_answer(content, self.status, self.headers)


def json_answer(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer with ``content`` as JSON.

    Raises:
        TypeError: it cannot be written as JSON.
    """
    return Response(
        dumps(content),
        status,
        {"content-type": "application/json", "cache-control": "no-store", **(headers or {})},
    )


def status_object(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a status document of ``QueueService.get_job_status`` as it is answered.

    Every field is there, and dates are text. Jobs, and documents in the mirror, may be anybody's: what
    JSON has no word for becomes text as well, and so does what is nested too deeply.
    """
    complete = {**dict.fromkeys(_FIELDS), **document}
    shown = {name: _iso(value) if isinstance(value, datetime) else value for name, value in complete.items()}
    try:
        dumps(shown)
    except TypeError:
        return {name: _in_words(value, MAX_DEPTH) for name, value in shown.items()}
    return shown


def _in_words(value: Any, levels_left: int) -> Any:
    if isinstance(value, dict) and levels_left:
        return {str(name): _in_words(entry, levels_left - 1) for name, entry in value.items()}
    if isinstance(value, list) and levels_left:
        return [_in_words(entry, levels_left - 1) for entry in value]
    if isinstance(value, dict | list):
        return "(nested too deeply)"
    if isinstance(value, datetime):
        return _iso(value)
    return value if value is None or isinstance(value, str | int | float) else str(value)


def _iso(moment: datetime) -> str:
    """Return the moment as JavaScript writes it: in UTC, with milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
