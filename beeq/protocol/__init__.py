"""The data in Redis: keys, JSON, records, options, events, outcomes. Pure.

No IO, no clock, no chance: callers bring the time. README.md beside this file describes bee-queue's wire
format and beeq's own keys. ``beeq.redis`` sends and receives the bytes.
"""
