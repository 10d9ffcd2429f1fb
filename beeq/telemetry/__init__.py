"""What the engine tells of itself while it works, where somebody asked for it: counts, and spans.

``hooks`` is what a queue's parts look at; while nothing is set there, nothing is done. ``tally`` counts,
``tracing`` makes OpenTelemetry spans. Knows neither Redis nor Prometheus: ``beeq.metrics`` shows the counts.
"""
