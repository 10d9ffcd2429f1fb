"""Scripts, descriptions, pictures and videos from an OpenAI-compatible HTTP API.

Here: what is asked for (``generation``, ``film``, ``parameters``) and what a model does not take
(``dialect``), what was asked before (``idempotency``), HTTP with the provider (``client``), the meaning of
its responses (``responses``, ``bodies``, ``pictures``) and of what models write (``writing``), the files
(``files``), and keeping the key out of all of it (``redaction``). Not here: jobs and queues; what an error
means for a job is decided in ``beeq.processors.ai``.
"""
