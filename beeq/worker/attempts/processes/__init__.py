"""The pool of child processes that run handlers with ``executor="process"``.

``pool`` chooses a child for a job, ``child_process`` is one child seen from the worker, ``child_main`` runs
in it, ``ipc`` is what they say to each other, ``handler_ref`` is how a child finds the handler. With a
worker that is killed end its children and what they have started: ``group_keeper`` in the worker sees to it,
``keeper_main`` in a process of its own. Processes that run whole workers are not here but in
``beeq.worker.supervisor``.
"""
