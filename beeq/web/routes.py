"""What each route does. Every wait for Redis has a bound; ``application.py`` turns errors into responses."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import unquote_to_bytes

from starlette.responses import Response

from beeq.errors import RedisError, RedisUnavailable
from beeq.service import QueueService
from beeq.web import openapi
from beeq.web.bodies import RequestBody, script_job
from beeq.web.responses import Refusal, json_response, status_object

logger = logging.getLogger("beeq.web")

#: The longest wait for Redis, all attempts together.
REDIS_TIMEOUT_S = 10.0
#: The same for a health check, which will soon be repeated.
HEALTH_TIMEOUT_S = 4.0
#: All queues are on one server: any of them will do.
_ASKED_QUEUE = "ai-generation"

#: Takes the service, the request's body, and the path's parameters, still percent-encoded.
Handler = Callable[[QueueService, RequestBody, Mapping[str, str]], Awaitable[Response]]


@asynccontextmanager
async def _in_time(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise RedisUnavailable("it does not answer") from None


async def start_script(service: QueueService, body: RequestBody, _names: Mapping[str, str]) -> Response:
    """Enqueue a script job; one whose id exists is not enqueued again."""
    requested = script_job(await body.read_json())
    async with _in_time(REDIS_TIMEOUT_S):
        job = await service.add_ai_generation_job(requested)
    return json_response({"jobId": job.id, "message": "Script generation started"})


async def job_status(service: QueueService, _body: RequestBody, names: Mapping[str, str]) -> Response:
    """Return a job's status document."""
    unknown = Refusal(404, "Job not found")
    try:
        job_id = unquote_to_bytes(names["jobId"]).decode()
    except UnicodeDecodeError:
        raise unknown from None
    async with _in_time(REDIS_TIMEOUT_S):
        document = await service.get_job_status(job_id)
    if document is None:
        raise unknown
    return json_response(status_object(document))


async def health(service: QueueService, _body: RequestBody, _names: Mapping[str, str]) -> Response:
    """Return whether Redis answers."""
    try:
        async with _in_time(HEALTH_TIMEOUT_S):
            await service.queues[_ASKED_QUEUE].check_health()
    except RedisError as error:
        logger.warning("Redis is not available: %s", error)
        return json_response({"status": "unavailable"}, 503)
    return json_response({"status": "ok"})


async def stats(service: QueueService, _body: RequestBody, _names: Mapping[str, str]) -> Response:
    """Return the numbers of each queue."""
    async with _in_time(REDIS_TIMEOUT_S):
        by_name = await service.queue_stats()
    return json_response({name: numbers.shown() for name, numbers in by_name.items()})


async def openapi_document(_service: QueueService, _body: RequestBody, _names: Mapping[str, str]) -> Response:
    """Return the OpenAPI document."""
    return json_response(openapi.document())


#: Path, as in the OpenAPI document, → method → handler. HEAD and OPTIONS are derived from these.
ROUTES: Mapping[str, Mapping[str, Handler]] = {
    "/v1/generate/script": {"POST": start_script},
    "/v1/jobs/{jobId}/status": {"GET": job_status},
    "/v1/stats": {"GET": stats},
    "/health": {"GET": health},
    "/openapi.json": {"GET": openapi_document},
}
