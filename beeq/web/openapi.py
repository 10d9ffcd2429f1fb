"""The OpenAPI 3.1 document of the routes: their requests, and all their responses. Pure."""

from typing import Any

from beeq import __version__
from beeq.job_status import STATUSES, mirrored_name
from beeq.jobs import JOB_TYPES, MAX_NAME_LENGTH, MAX_PROMPT_LENGTH
from beeq.web.bodies import MAX_BODY_BYTES, MAX_VALUES
from beeq.web.responses import MAX_DEPTH

Schema = dict[str, Any]

#: Any JSON value.
_ANYTHING: Schema = {}
_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH, "pattern": r"^[^\u0000]*$"}
_REFERENCE: Schema = {"oneOf": [_NAME, {"type": "integer"}]}
_HEX = "[0-9a-fA-F]"
_COUNT: Schema = {"type": "integer", "minimum": 0}
_MOMENT: Schema = {"type": ["string", "null"], "format": "date-time"}


def _object(properties: Schema, *, optional: tuple[str, ...] = (), **more: Any) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, **more}


_SCHEMAS: Schema = {
    "ScriptRequest": _object(
        {
            "projectId": {**_REFERENCE, "description": "Whose project it is."},
            "userId": {**_REFERENCE, "description": "Who asks for it."},
            "parameters": {"type": "object", "description": "What the script is to be about."},
            "prompt": {
                "type": ["string", "null"],
                "maxLength": MAX_PROMPT_LENGTH,
                "pattern": r"^[^\u0000]*$",
            },
            "modelId": {"oneOf": [_NAME, {"type": "null"}]},
            "id": {
                "oneOf": [
                    {"type": "string", "pattern": f"^(?:{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}})$"},
                    {"type": "null"},
                ],
                "description": "The job's id, a UUID: asking again with it asks once. Made if missing.",
            },
            "createdAt": {"oneOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
            "type": {"const": "script"},
        },
        optional=("prompt", "modelId", "id", "createdAt", "type"),
        description=f"At most {MAX_DEPTH} levels and {MAX_VALUES} values. Further fields are kept.",
    ),
    "ScriptStarted": _object({"jobId": {"type": "string"}, "message": {"type": "string"}}),
    "JobStatus": _object(
        {
            "jobId": {"type": "string"},
            "queueName": {"enum": [mirrored_name(name) for name in JOB_TYPES]},
            "status": {"enum": list(STATUSES)},
            "jobData": {**_ANYTHING, "description": "The job as it was enqueued; null if it is gone."},
            "result": {**_ANYTHING, "description": "What a completed job came to."},
            "error": {"type": ["string", "null"], "description": "Why the last attempt failed."},
            "projectId": {**_ANYTHING, "description": "As the job has it."},
            "createdAt": _MOMENT,
            "updatedAt": _MOMENT,
        }
    ),
    "QueueStats": _object(
        {
            **dict.fromkeys(
                ("waiting", "active", "succeeded", "failed", "delayed", "newestJob", "workers"), _COUNT
            ),
            "oldestWaiting": {
                "type": ["integer", "null"],
                "minimum": 0,
                "description": "How long ago the next job to run was created, in ms.",
            },
            "owed": {**_COUNT, "description": "Changes not yet in the mirror, where there is one."},
        },
        optional=("owed",),
    ),
    "Stats": _object({name: {"$ref": "#/components/schemas/QueueStats"} for name in JOB_TYPES}),
    "Health": _object({"status": {"const": "ok"}}),
    "Unhealthy": _object({"status": {"const": "unavailable"}}),
    "Error": _object({"error": {"type": "string"}}),
    "Faults": _object(
        {
            "error": {"type": "string"},
            "faults": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Each wrong field, and what is wrong with it.",
            },
        },
        optional=("faults",),
    ),
}


def _schema(name: str) -> Schema:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}


def _response(description: str, schema: str) -> Schema:
    return {"description": description, "content": _schema(schema)}


_ERRORS: Schema = {
    "400": _response("The request or its body is malformed, or fields are wrong: all are named.", "Faults"),
    "401": _response("The token is missing or wrong.", "Error"),
    "403": _response("The request's host, origin or sender is not allowed.", "Error"),
    "404": _response("There is no such job.", "Error"),
    "408": _response("The body did not come in time.", "Error"),
    "409": _response("The id is that of another job.", "Error"),
    "413": _response(f"The body is larger than {MAX_BODY_BYTES} bytes.", "Error"),
    "415": _response("The body is not application/json, or compressed.", "Error"),
    "429": _response("Too many jobs wait already; Retry-After says when to ask again.", "Error"),
    "500": _response("Something went wrong here.", "Error"),
    "501": _response("A package is missing here; the error names it.", "Error"),
    "503": _response("Redis is away, or refuses; or too many large requests are under way.", "Error"),
}


def _operation(name: str, summary: str, ok: Schema, errors: Schema, **more: Any) -> Schema:
    return {"operationId": name, "summary": summary, "responses": {"200": ok, **errors}, **more}


def _errors(*statuses: str) -> Schema:
    return {status: _ERRORS[status] for status in statuses}


_PATHS: Schema = {
    "/v1/generate/script": {
        "post": _operation(
            "startScript",
            "Have a script written",
            _response("The job is queued.", "ScriptStarted"),
            _errors("400", "401", "403", "408", "409", "413", "415", "429", "500", "503"),
            requestBody={"required": True, "content": _schema("ScriptRequest")},
        ),
    },
    "/v1/jobs/{jobId}/status": {
        "get": _operation(
            "jobStatus",
            "See how a job is doing",
            _response("What is known of it.", "JobStatus"),
            _errors("400", "401", "403", "404", "500", "503"),
            parameters=[
                {
                    "name": "jobId",
                    "in": "path",
                    "required": True,
                    "description": "Percent-encoded: it may hold any character.",
                    "schema": {"type": "string", "minLength": 1},
                }
            ],
        ),
    },
    "/v1/stats": {
        "get": _operation(
            "stats",
            "Count the jobs and workers of each queue",
            _response("The numbers by queue.", "Stats"),
            _errors("400", "401", "403", "500", "503"),
        ),
    },
    "/metrics": {
        "get": _operation(
            "metrics",
            "Scrape the metrics",
            {
                "description": "The text formats of Prometheus and OpenMetrics, by Accept.",
                "content": {"text/plain": {"schema": {"type": "string"}}},
            },
            _errors("400", "401", "403", "500", "501"),
        ),
    },
    "/health": {
        "get": _operation(
            "health",
            "See whether jobs can be taken",
            _response("Redis answers.", "Health"),
            {**_errors("400", "403", "500"), "503": _response("It does not.", "Unhealthy")},
            security=[],
        ),
    },
    "/openapi.json": {
        "get": _operation(
            "openapi",
            "Read this document",
            {"description": "OpenAPI 3.1.", "content": {"application/json": {"schema": {"type": "object"}}}},
            _errors("400", "401", "403", "500"),
        ),
    },
}


def document() -> Schema:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "beeq",
            "version": __version__,
            "description": "Starts jobs and follows them. Where a token is configured, all but the health "
            "check need it. Every error is an object with the text `error`. "
            "An unknown path is answered with 404, a method that a path does not have with 405 and `Allow`; "
            "HEAD is GET without the body.",
        },
        "paths": _PATHS,
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}],
    }
