"""Webhook deliveries to untrusted URLs.

Here: parsing a webhook's URL (``urls``), signing (``signature``) by an endpoint's keys (``keys``), headers
that a receiver requires (``own_headers``), one attempt at delivery (``delivery``) and the parts of its
response (``response``), and receivers that are not called for now (``receivers``). Not here: HTTP itself, and
which addresses may be called (``beeq.http_client``); jobs and queues; ``beeq.processors.webhook`` turns a
response into a job's outcome.
"""
