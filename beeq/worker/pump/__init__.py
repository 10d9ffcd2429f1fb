"""What a worker says to Redis about jobs: it claims them, records outcomes, and gives jobs back.

``pump`` does what the scheduler decides, ``exchange_packer`` packs its calls, ``blocking_fetch`` waits at an
empty queue, ``recovery`` puts things right after a failed call. Not here: what is due, which
``beeq.worker.scheduling`` decides without IO; the heartbeat, which beats in a thread of its own
(``beeq.worker.heartbeat``).
"""
