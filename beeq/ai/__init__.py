"""Scripts, descriptions, pictures and videos from an OpenAI-compatible HTTP API.

Here: requests (``generation``, ``film``, ``parameters``) and the fields that a model refuses (``dialect``),
earlier requests (``idempotency``), HTTP with the provider (``client``), reading its responses (``responses``,
``bodies``, ``pictures``) and the models' texts (``writing``), the files (``files``), and removing the key
from texts (``redaction``). Not here: jobs and queues; ``beeq.processors.ai`` turns errors into outcomes.
"""
