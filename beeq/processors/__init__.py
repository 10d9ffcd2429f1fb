"""The handlers of the built-in queues: one processor for each queue, and ``build``, which makes them.

Here: settings, the check of a job's fields, progress (``base``), and turning errors into outcomes. Not here:
the work itself (``beeq.ai``, ``beeq.media``, ``beeq.webhooks``), and Redis.
"""

from typing import Any

from beeq.processors.base import Processor, ProcessorSettings


def build(settings: ProcessorSettings) -> dict[str, Processor[Any]]:
    """Return the processors by queue name. The caller closes them after the last job.

    Raises ValueError if a setting is invalid; the message names it.
    """
    # Imported here, so that a producer, which only needs the job models, loads no HTTP client.
    from beeq.processors.ai import AIProcessor  # noqa: PLC0415 - see above
    from beeq.processors.media import AssemblyProcessor, MediaProcessor  # noqa: PLC0415 - see above
    from beeq.processors.webhook import WebhookProcessor  # noqa: PLC0415 - see above

    processors: list[Processor[Any]] = [
        AIProcessor(settings),
        MediaProcessor(settings),
        AssemblyProcessor(settings),
        WebhookProcessor(settings),
    ]
    return {processor.queue_name: processor for processor in processors}
