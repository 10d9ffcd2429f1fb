"""Webhook deliveries to URLs that strangers choose.

``signature`` signs, ``addresses`` says which hosts may be called, ``guard`` connects to those and
no others, ``connections`` keeps what may be used again, ``answer`` reads what came back,
``delivery`` does one attempt. Nothing in here knows jobs or queues.
"""
