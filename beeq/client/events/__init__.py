"""What happens to jobs, as a queue hears it: whose it is, who listens, what was missed.

``own_events`` passes on what is about the own database's jobs, ``event_hub`` delivers it, ``listeners`` are
called one after the other, ``missed_ends`` looks for what was said while nobody heard. The connection that
hears is ``beeq.redis.pubsub``'s.
"""
