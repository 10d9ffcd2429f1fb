"""The events of jobs that a queue receives: filtering, delivery, and finding those that were missed.

``own_events`` passes on the events of the own database's jobs, ``event_hub`` delivers them, ``listeners``
calls the listeners in order, ``missed_ends`` finds ends published while the connection was down. The
connection belongs to ``beeq.redis.pubsub``.
"""
