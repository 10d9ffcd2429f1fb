"""What a worker says to Redis about jobs: it claims them, records outcomes, and gives jobs back.

``pump`` tells the scheduler what happens, and has its parts carry out what that decides: ``exchange_calls``
sends calls, which ``exchange_packer`` packs, ``job_starts`` starts the jobs that they bring, for the
``listener``, ``blocking_fetch`` waits at an empty queue, ``claiming_ahead`` sees to jobs claimed ahead.
``awaited`` does what takes time, with the commands of ``recovery``. No part knows the pump. Not here: what is
due, which ``beeq.worker.scheduling`` decides without IO; the heartbeat, which beats in a thread of its own
(``beeq.worker.heartbeat``).
"""
