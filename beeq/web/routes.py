"""The routes' handlers. Every wait for Redis has a bound; ``application.py`` turns errors into responses.

An id names one job among the four queues; otherwise a status could be another client's job's: an id that
another queue holds is refused. The job's record in Redis decides, not the mirror, which may be away. An id
that the same queue holds is a repeated request, if project, user and type are the same.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from starlette.responses import Response

from beeq.errors import JobUnreadable, RedisError, RedisUnavailable
from beeq.job import Job
from beeq.metrics.gauges import GaugeReader
from beeq.service import QueueService
from beeq.web import openapi
from beeq.web.bodies import RequestBody, ScriptRequest, parsed, script_job
from beeq.web.bounds import MAX_JOBS_AT_ONCE, check_queue
from beeq.web.policy import Policy
from beeq.web.responses import Refusal, json_response, status_object

logger = logging.getLogger("beeq.web")

#: The longest wait for Redis, all attempts together.
REDIS_TIMEOUT_S = 10.0
#: The same for a health check, which will soon be repeated.
HEALTH_TIMEOUT_S = 4.0
#: All queues are on one server: any of them can be asked.
_ASKED_QUEUE = "ai-generation"
_SCRIPT_QUEUE = "ai-generation"


@dataclass(frozen=True, slots=True)
class Running:
    """The state of the running application."""

    service: QueueService
    policy: Policy
    #: Entered by a request that is about to read and save a job.
    places: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_JOBS_AT_ONCE))


#: Takes the running state, the request's body, and the path's parameters, still percent-encoded.
Handler = Callable[[Running, RequestBody, Mapping[str, str]], Awaitable[Response]]


@asynccontextmanager
async def _in_time(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError:
        raise RedisUnavailable("it does not answer") from None


async def start_script(running: Running, body: RequestBody, _names: Mapping[str, str]) -> Response:
    """Enqueue a script job; one whose id exists is not enqueued again."""
    content = await body.read()
    async with _in_time(REDIS_TIMEOUT_S), running.places:
        requested = script_job(parsed(content))
        if not await _exists(running.service, requested.id):
            health = await running.service.queues[_SCRIPT_QUEUE].check_health()
            waiting = health.waiting + health.delayed
            check_queue(waiting, max_waiting=running.policy.max_waiting, size=len(content))
        try:
            job = await running.service.add_ai_generation_job(requested)
        except JobUnreadable:
            raise _taken() from None
    if not job.is_new and not _is_same(job, requested):
        raise _taken()
    return json_response({"jobId": job.id, "message": "Script generation started"})


def _taken() -> Refusal:
    return Refusal(409, "The id is that of another job")


async def _exists(service: QueueService, job_id: str | None) -> bool:
    """Return whether the queue of scripts has a job of that id; raises Refusal if another queue has one."""
    if job_id is None:
        return False
    names = list(service.queues)
    job_states = await asyncio.gather(*(service.queues[name].job_state(job_id) for name in names))
    holders = {name for name, job_state in zip(names, job_states, strict=True) if job_state is not None}
    if holders - {_SCRIPT_QUEUE}:
        raise _taken()
    return bool(holders)


def _is_same(job: Job, requested: ScriptRequest) -> bool:
    """Return whether the job is one that such a request has enqueued, or may have."""
    same = {"type": requested.type, "projectId": requested.project_id, "userId": requested.user_id}
    return isinstance(job.data, dict) and all(job.data.get(name) == same[name] for name in same)


async def job_status(running: Running, _body: RequestBody, names: Mapping[str, str]) -> Response:
    """Return a job's status document."""
    unknown = Refusal(404, "Job not found")
    try:
        job_id = unquote_to_bytes(names["jobId"]).decode()
    except UnicodeDecodeError:
        raise unknown from None
    async with _in_time(REDIS_TIMEOUT_S):
        document = await running.service.get_job_status(job_id)
    if document is None:
        raise unknown
    if running.policy.hides_data:
        document = {**document, "jobData": None, "result": None, "error": None, "projectId": None}
    return json_response(status_object(document))


async def health(running: Running, _body: RequestBody, _names: Mapping[str, str]) -> Response:
    """Return whether Redis answers."""
    try:
        async with _in_time(HEALTH_TIMEOUT_S):
            await running.service.queues[_ASKED_QUEUE].check_health()
    except RedisError as error:
        logger.warning("Redis is not available: %s", error)
        return json_response({"status": "unavailable"}, 503)
    return json_response({"status": "ok"})


async def stats(running: Running, _body: RequestBody, _names: Mapping[str, str]) -> Response:
    """Return the numbers of each queue."""
    async with _in_time(REDIS_TIMEOUT_S):
        by_name = await running.service.queue_stats()
    return json_response({name: numbers.shown() for name, numbers in by_name.items()})


async def metrics(running: Running, body: RequestBody, _names: Mapping[str, str]) -> Response:
    """Return the metrics for Prometheus, without those of Redis if it does not answer in time."""
    try:
        from beeq.metrics.families import Readings, rendered  # noqa: PLC0415 - an extra
    except ImportError:
        raise Refusal(501, "Metrics need the package prometheus-client") from None
    queues = running.service.queues
    tallies = {name: queue.telemetry.tally for name, queue in queues.items()}
    counts = {name: tally.read() for name, tally in tallies.items() if tally is not None}
    gauges = await GaugeReader(queues.values(), has_own_connection=False).read()
    content, content_type = rendered(Readings(counts, gauges=gauges), body.accept)
    return Response(content, headers={"content-type": content_type, "cache-control": "no-store"})


async def openapi_document(_running: Running, _body: RequestBody, _names: Mapping[str, str]) -> Response:
    """Return the OpenAPI document."""
    return json_response(openapi.document())


#: Path, as in the OpenAPI document, → method → handler. HEAD and OPTIONS are derived from these.
ROUTES: Mapping[str, Mapping[str, Handler]] = {
    "/v1/generate/script": {"POST": start_script},
    "/v1/jobs/{jobId}/status": {"GET": job_status},
    "/v1/stats": {"GET": stats},
    "/metrics": {"GET": metrics},
    "/health": {"GET": health},
    "/openapi.json": {"GET": openapi_document},
}
#: Routes without a token: probes have none.
WITHOUT_TOKEN = frozenset({"/health"})
