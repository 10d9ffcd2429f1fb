"""Webhook deliveries to URLs that strangers choose.

Here: signing (``signature``), which hosts may be called (``addresses``), connecting to those and no others
(``guard``), connections (``connections``), one attempt at delivery (``delivery``), its response
(``response``). Not here: jobs and queues; what a response means for a job is decided in
``beeq.processors.webhook``.
"""
