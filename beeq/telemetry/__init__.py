"""Counts and spans of the engine's work, where they were asked for.

``hooks`` holds what a queue's parts report to; while it is empty, nothing is done. ``tally`` counts,
``tracing`` makes OpenTelemetry spans. Knows neither Redis nor Prometheus: ``beeq.metrics`` shows the counts.
"""
