"""Talks to Redis about a worker's jobs: claims them, records outcomes, and gives jobs back.

``pump`` reports events to the scheduler, and has its parts carry out its decisions: ``exchange_calls``
sends calls, which ``exchange_packer`` packs, ``job_starts`` starts the jobs that they bring, for the
``listener``, ``blocking_fetch`` waits at an empty queue, ``claiming_ahead`` sees to jobs claimed ahead.
``awaited`` carries out actions that take time, with the commands of ``recovery``. No part knows the pump. Not
here: decisions, which ``beeq.worker.scheduling`` makes without IO; the heartbeat, which has a thread of its
own (``beeq.worker.heartbeat``).
"""
