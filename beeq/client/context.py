"""What the parts of one queue share. A part takes the context and reads what it needs from it."""

from collections.abc import Callable, Container
from dataclasses import dataclass, field

from beeq.client.events.event_hub import EventHub
from beeq.protocol.keys import Keys
from beeq.redis.connector import Connector
from beeq.redis.pipeline import Pipeline
from beeq.redis.probe import RedisProbe
from beeq.settings import Settings
from beeq.supervision.duties import Duties
from beeq.telemetry.hooks import Telemetry


@dataclass(frozen=True, slots=True)
class QueueContext:
    """One queue's name, settings and connections, and the ways to its listeners.

    ``emit`` calls the queue's listeners of an event, and returns whether there were any; ``heard`` returns a
    live view of the events that have listeners; ``report_error`` emits ``error``, or logs it if there are no
    listeners, and only counts what was reported lately; ``now_ms`` is this machine's clock, in ms since the
    epoch; ``duties`` are the background duties; ``probe`` says whether Redis answers; ``telemetry`` counts
    and traces the work.
    """

    name: str
    settings: Settings
    keys: Keys
    connector: Connector
    pipeline: Pipeline
    event_hub: EventHub
    emit: Callable[..., bool]
    heard: Callable[[], Container[str]]
    report_error: Callable[[BaseException], None]
    now_ms: Callable[[], int]
    duties: Duties
    probe: RedisProbe
    telemetry: Telemetry = field(default_factory=Telemetry)

    def where(self, concurrency: int) -> str:
        """Return how many places there are, on which Redis, without secrets, and under which prefix."""
        places = f"{concurrency} place{'s' if concurrency > 1 else ''}"
        return f"{places} on {self.connector.shown}, prefix {self.settings.prefix}"
