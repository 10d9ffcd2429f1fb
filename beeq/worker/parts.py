"""The parts of which a queue is built: made together, and made again when a closed queue is opened again.

Old parts stay closed: callers that still wait in them get ``QueueClosed``. Listeners move to the new parts,
and so does a handler that was given outside an event loop, at the top level of a module, say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

from beeq.client.context import QueueContext
from beeq.client.events.event_hub import EventHub
from beeq.client.events.listeners import Listeners
from beeq.client.events.missed_ends import MissedEnds
from beeq.client.job_actions import HasStrategies, JobActions
from beeq.client.owning_loop import OwningLoop
from beeq.client.reader import Reader
from beeq.client.session import Session
from beeq.process import now_ms
from beeq.protocol.keys import Keys
from beeq.redis.connection import Connection
from beeq.redis.connector import Connector
from beeq.redis.pipeline import Pipeline
from beeq.redis.probe import RedisProbe
from beeq.redis.replicas import ReplicaWait
from beeq.settings import Settings
from beeq.supervision.duties import Duties, patience_s_of
from beeq.supervision.error_reports import ErrorReports
from beeq.telemetry.hooks import Telemetry
from beeq.telemetry.tracing import Tracing
from beeq.worker.consumer import Consumer

if TYPE_CHECKING:
    from redis.asyncio import Redis


@dataclass(frozen=True, slots=True)
class QueueParts:
    """One queue's parts, from its opening to its close."""

    context: QueueContext
    keys: Keys
    connector: Connector
    pipeline: Pipeline
    listeners: Listeners
    event_hub: EventHub
    error_reports: ErrorReports
    reader: Reader
    session: Session
    actions: JobActions
    consumer: Consumer

    @classmethod
    def build(cls, queue: HasStrategies, name: str, settings: Settings, redis: str | Redis | None) -> Self:
        """Return the parts of ``queue``, unopened. Raises what ``Queue`` raises for a bad ``redis``."""
        keys = Keys(settings.prefix, name)
        timeout_ms = settings.redis_timeout
        connector = Connector(redis, timeout_ms=timeout_ms, slot_key=keys.id)
        keys = replace(keys, is_in_cluster=connector.is_of_cluster)
        wanted = settings.wait_replicas
        replicas = ReplicaWait(wanted, key=keys.written, timeout_ms=timeout_ms) if wanted else None
        pipeline = Pipeline(connector, timeout_ms=timeout_ms, replicas=replicas)
        owning_loop = OwningLoop(name)
        listeners = Listeners(name, owning_loop)
        event_hub = EventHub(emit=listeners.emit, clock_ms=now_ms)
        error_reports = ErrorReports(
            name,
            emit=listeners.emit,
            spawn=partial(owning_loop.spawn, name=f"beeq error reports of {name}"),
            connection=Connection(connector, timeout_ms=timeout_ms),
        )
        telemetry = Telemetry(tracing=Tracing.of(name, settings.tracing))

        def report_error(error: BaseException) -> None:
            if telemetry.tally is not None:
                telemetry.tally.reported(error)
            error_reports.report(error)

        probe = RedisProbe(connector, keys, timeout_ms=timeout_ms)
        context = QueueContext(
            name=name,
            settings=settings,
            keys=keys,
            connector=connector,
            pipeline=pipeline,
            event_hub=event_hub,
            emit=listeners.emit,
            heard=listeners.heard,
            report_error=report_error,
            now_ms=now_ms,
            duties=Duties(
                on_error=report_error,
                patience_s=patience_s_of(settings.stall_interval),
                is_redis_there=probe.is_answered,
            ),
            probe=probe,
            telemetry=telemetry,
        )
        reader = Reader(pipeline, keys, scan_count=settings.redis_scan_count)
        session = Session(context, owning_loop, listeners, MissedEnds(context, reader, owning_loop))
        actions = JobActions(queue, context, session=session, listeners=listeners, reader=reader)
        consumer = Consumer(context, session, actions)
        return cls(
            context,
            keys,
            connector,
            pipeline,
            listeners,
            event_hub,
            error_reports,
            reader,
            session,
            actions,
            consumer,
        )

    def succeed(self, earlier: QueueParts) -> Self:
        """Take over the listeners, and the handler that was given outside a loop; return these parts."""
        self.listeners.take_over(earlier.listeners.hand_over())
        self.context.telemetry.tally = earlier.context.telemetry.tally
        self.context.telemetry.tracing = earlier.context.telemetry.tracing
        earlier.consumer.hand_over(self.consumer)
        return self
