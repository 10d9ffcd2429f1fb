"""What runs the built-in queues' jobs: one processor a queue, none of which knows Redis."""

from __future__ import annotations

from typing import Any

from beeq.processors.base import Processor, ProcessorSettings


def build(settings: ProcessorSettings) -> dict[str, Processor[Any]]:
    """Return the processors by queue name. Their owner closes them after the last job.

    Raises:
        ValueError: a setting is of no use; the message names it.
    """
    # Imported here: a producer that only wants the job models needs no HTTP client.
    from beeq.processors.ai import AIProcessor  # noqa: PLC0415 - see above
    from beeq.processors.assembly import AssemblyProcessor  # noqa: PLC0415 - see above
    from beeq.processors.media import MediaProcessor  # noqa: PLC0415 - see above
    from beeq.processors.webhook import WebhookProcessor  # noqa: PLC0415 - see above

    processors: list[Processor[Any]] = [
        AIProcessor(settings),
        MediaProcessor(settings),
        AssemblyProcessor(settings),
        WebhookProcessor(settings),
    ]
    return {processor.queue_name: processor for processor in processors}
