"""Webhook deliveries to URLs that strangers choose.

Here: what is a webhook's URL (``urls``), signing (``signature``) by an endpoint's keys (``keys``), headers
that a receiver asks for (``own_headers``), which hosts may be called (``addresses``), which addresses are
this machine's own (``own_addresses``), which ports and networks the configuration allows
(``network_limits``), connecting to those and no others (``guard``), connections (``connections``), one
attempt at delivery (``delivery``), the head of its response as it comes (``head``), header lines in one pass
(``header_lines``), what a response means (``response``), and which receivers are left alone for now
(``receivers``).
Not here: jobs and queues; what a response means for a job is decided in ``beeq.processors.webhook``.
"""
