"""What is written to Redis and read from it: keys, JSON, records, options, events, outcomes. Pure.

No IO, no clock, no chance: callers bring the time. README.md beside this file describes bee-queue's wire
format and beeq's own keys. How bytes reach Redis is not here but in ``beeq.redis``.
"""
