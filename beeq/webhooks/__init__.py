"""Webhook deliveries to untrusted URLs.

Here: parsing a webhook's URL (``urls``), signing (``signature``) by an endpoint's keys (``keys``), headers
that a receiver requires (``own_headers``), the hosts that may be called (``addresses``), this machine's own
addresses (``own_addresses``), allowed ports and networks (``network_limits``), connecting to those and no
others (``guard``), connections (``connections``), one attempt at delivery (``delivery``), the head of its
response (``head``), header lines in one pass (``header_lines``), the parts of a response (``response``), and
receivers that are not called for now (``receivers``). Not here: jobs and queues; ``beeq.processors.webhook``
turns a response into a job's outcome.
"""
