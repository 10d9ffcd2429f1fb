"""Responses: JSON, never cached, written as Node would write it. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from starlette.responses import Response

from beeq.jobs import iso_text
from beeq.protocol.codec import MAX_SHOWN_LEVELS, dumps, shallow

#: Levels of lists and objects in a request, and of those in a job that are answered.
MAX_DEPTH = MAX_SHOWN_LEVELS
#: Of a status document.
_FIELDS = (
    *("jobId", "queueName", "status", "jobData", "result", "error"),
    *("projectId", "createdAt", "updatedAt"),
)


class Refusal(Exception):
    """The request gets an error response.

    ``error`` is the sentence for the client, and repeats no values of the request; ``faults`` holds a
    sentence for each invalid field, if fields are.
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

    def response(self) -> Response:
        """Return the response."""
        content: dict[str, Any] = {"error": self.error}
        if self.faults is not None:
            content["faults"] = list(self.faults)
        return json_response(content, self.status, self.headers)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with ``content`` as JSON; raises TypeError if that cannot be written as JSON."""
    shared = {"content-type": "application/json", "cache-control": "no-store"}
    return Response(dumps(content), status, {**shared, **(headers or {})})


def status_object(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a status document of ``QueueService.get_job_status`` as a JSON value.

    Every field is there, and dates are text. Jobs, and documents in the mirror, may come from other
    programs: values without a JSON type become text, and so do values that are nested too deeply.
    """
    complete = {**dict.fromkeys(_FIELDS), **document}
    shown = {
        name: iso_text(value) if isinstance(value, datetime) else value for name, value in complete.items()
    }
    try:
        dumps(shown)
    except TypeError:
        return {name: shallow(value, as_text=_as_text) for name, value in shown.items()}
    return shown


def _as_text(value: Any) -> str:
    return iso_text(value) if isinstance(value, datetime) else str(value)
