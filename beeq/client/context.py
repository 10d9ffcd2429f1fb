"""What the parts of one queue share. A part takes the context and reads what it needs from it."""

from collections.abc import Callable
from dataclasses import dataclass

from beeq.client.event_hub import EventHub
from beeq.protocol.keys import Keys
from beeq.redis.connector import Connector
from beeq.redis.pipeline import Pipeline
from beeq.settings import Settings


@dataclass(frozen=True, slots=True)
class QueueContext:
    """One queue's name, settings and connections, and the ways to its listeners.

    Attributes:
        name: the queue's name.
        settings: the queue's settings.
        keys: the names of its keys in Redis.
        connector: makes connections to its Redis.
        pipeline: the connection that its commands share.
        event_hub: delivers what is heard of its jobs.
        emit: calls the queue's listeners of an event; returns whether there were any.
        report_error: emits ``error``; without a listener the error is logged.
        now_ms: this machine's clock, in ms since the epoch.
    """

    name: str
    settings: Settings
    keys: Keys
    connector: Connector
    pipeline: Pipeline
    event_hub: EventHub
    emit: Callable[..., bool]
    report_error: Callable[[BaseException], None]
    now_ms: Callable[[], int]
