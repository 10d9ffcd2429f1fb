"""The pool of child processes that run handlers with ``executor="process"``.

``pool`` chooses a child for a job, ``child_process`` is one child seen from the worker, ``child_main`` runs
in it, ``ipc`` are their messages, ``handler_ref`` is how a child finds the handler. When a worker is killed,
its children and the processes they started are killed, too: by ``group_keeper`` in the worker, and
``keeper_main`` in a process of its own. Processes that run whole workers are in ``beeq.worker.supervisor``.
"""
