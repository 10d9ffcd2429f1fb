"""The processor of ``webhook-processing``: turns responses into outcomes. ``beeq.webhooks`` delivers."""

import asyncio
import logging
import math
import time
from http import HTTPStatus

from beeq.errors import Discard, Postpone, Retry
from beeq.http_client.addresses import AllowedHosts
from beeq.http_client.guard import WebhookRefused
from beeq.http_client.local_failure import LocalFailure
from beeq.http_client.network_limits import USUAL_PORTS, NetworkLimits
from beeq.job import RunningJob
from beeq.jobs import WebhookJob
from beeq.processors.base import Processor, ProcessorSettings
from beeq.protocol.codec import dumps
from beeq.protocol.options import backoff_ms_of, postponed_ms_of, timeout_ms_of
from beeq.webhooks.delivery import (
    ATTEMPT_TIMEOUT_S,
    DeliveryFailed,
    DeliveryGivenUp,
    Patience,
    WebhookSender,
)
from beeq.webhooks.keys import ADVISED_BYTES, SECRET_SETTING, EndpointKeys
from beeq.webhooks.own_headers import ReceiverHeaders
from beeq.webhooks.receivers.admission import ReceiverBusy, ReceiverLimits, Receivers, Visit
from beeq.webhooks.response import WebhookResponse
from beeq.webhooks.urls import Target, target_of

logger = logging.getLogger(__name__)

#: The job's timer begins a little before the attempt.
_ALMOST = 0.9
#: How long a job waits that this worker could not send, by its own fault.
_LOCAL_FAILURE_WAIT_MS = 5000
#: How often the log reports that at most.
_LOCAL_FAILURE_LOG_S = 60.0
#: How receivers answer a signature that they do not accept.
_KEY_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class WebhookProcessor(Processor[WebhookJob]):
    """POSTs each job's payload to its URL; the result is ``{"status": …, "duration": ms}``.

    A 2xx is success. 410, and a URL that must not be called, fail the job at once. After anything else, also
    a name that does not resolve or leads to a forbidden address, the job is retried as its policy says, and
    not before a ``Retry-After`` has passed. A receiver that failed too often is left alone for a while, and
    slow ones take no more than their share of the worker's places: their jobs wait in the queue, and use up
    no retries. ``receivers`` are the limits for that, in place of the settings'.

    Raises ValueError if a key, the allowed hosts, or another setting is invalid; the message names the
    variable.
    """

    queue_name = "webhook-processing"

    def __init__(self, settings: ProcessorSettings, *, receivers: ReceiverLimits | None = None) -> None:
        keys = EndpointKeys.parse(
            settings.webhook_secret,
            use=settings.webhook_keys,
            schemes=settings.webhook_signatures,
            mapped=settings.webhook_endpoint_keys,
        )
        if keys.shortest_secret is not None and keys.shortest_secret < ADVISED_BYTES:
            logger.warning(
                "%s has %d bytes: one of fewer than %d may be guessed",
                SECRET_SETTING,
                keys.shortest_secret,
                ADVISED_BYTES,
            )
        self._has_derived_keys = keys.shortest_secret is not None and keys.use == "derived"
        allowed = AllowedHosts.parse(settings.webhook_allow_hosts)
        headers = settings.webhook_headers
        limits = NetworkLimits.parse(settings.webhook_ports or USUAL_PORTS, settings.webhook_deny_nets)
        self._receivers = Receivers(
            receivers or ReceiverLimits.parse(settings.webhook_breaker_failures, settings.webhook_slow_places)
        )
        self._log_again_s = 0.0
        self._sender = WebhookSender(
            allowed,
            keys,
            headers=None if headers is None else ReceiverHeaders.parse(headers),
            limits=limits,
        )

    async def perform(self, job: RunningJob, data: WebhookJob) -> dict[str, int]:
        """Deliver once, unless the receiver is left alone at the moment."""
        # A job without a queue, as in a test, does not compete for places.
        places = getattr(getattr(job, "queue", None), "concurrency", None)
        try:
            target = target_of(data.webhook_url)
            waited_s = postponed_ms_of(job.options) / 1000
            with self._receivers.admit(target, places, job_id=str(job.id), waited_s=waited_s) as visit:
                response = await self._deliver(job, target, dumps(data.payload), visit)
                visit.answered(response.status)
        except WebhookRefused as refused:
            raise Discard(str(refused)) from None
        except ReceiverBusy as busy:
            raise Postpone(math.ceil(busy.wait_s * 1000), str(busy)) from None
        except LocalFailure as failure:  # no circuit counts it
            self._log(failure)
            raise Postpone(_LOCAL_FAILURE_WAIT_MS, str(failure)) from None
        return self._result(job, response)

    def _log(self, failure: LocalFailure) -> None:
        now_s = time.monotonic()
        if now_s >= self._log_again_s:
            self._log_again_s = now_s + _LOCAL_FAILURE_LOG_S
            logger.warning("webhooks wait: %s", failure)

    async def _deliver(self, job: RunningJob, target: Target, body: bytes, visit: Visit) -> WebhookResponse:
        assert job.id is not None  # noqa: S101 - a running job has an id
        timeout_ms = timeout_ms_of(job.options)
        timeout_s = timeout_ms / 1000 if timeout_ms else ATTEMPT_TIMEOUT_S
        slow_s = self._receivers.limits.slow_s
        began_s = time.monotonic()
        try:
            return await self._sender.deliver(
                target,
                job.id,
                body,
                timeout_s=timeout_s,
                patience=Patience(slow_s, visit.is_too_slow),
            )
        except DeliveryGivenUp:
            raise visit.given_up() from None
        except DeliveryFailed as failure:
            visit.failed(is_connected=failure.is_connected)
            raise
        except asyncio.CancelledError:
            # Cancelled by the job's timeout, if shorter than an attempt's, or with the worker or the job.
            # A job may set a timeout that no receiver can meet: that says nothing about this one.
            if timeout_s >= slow_s and time.monotonic() - began_s >= timeout_s * _ALMOST:
                visit.failed(is_connected=True)
            raise

    def _result(self, job: RunningJob, response: WebhookResponse) -> dict[str, int]:
        if response.accepted:
            return {"status": response.status, "duration": response.duration_ms}
        reason = f"webhook answered {response.status}"
        if self._has_derived_keys and response.status in _KEY_REFUSED:
            reason += " (the key that it must verify with: beeq webhook-secret URL)"
        if response.gone:
            raise Discard(f"{reason}: it wants no more messages")
        if HTTPStatus.MULTIPLE_CHOICES <= response.status < HTTPStatus.BAD_REQUEST:
            reason += ", and redirects are not followed"
        wait_ms = response.retry_after_ms
        if wait_ms is not None and wait_ms > backoff_ms_of(job.options):
            raise Retry(after=wait_ms, reason=reason)
        raise DeliveryFailed(reason)

    async def close(self) -> None:
        """Close the connections kept for the next delivery."""
        await self._sender.aclose()
