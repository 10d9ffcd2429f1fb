"""The page: every queue that Redis holds, seen and steered in a browser. ``beeq.web.dashboard`` makes it.

HTML is made here, from templates; the script adds shortcuts and live numbers to what works without it.
``application`` says who comes in and which screen it is; ``screens`` has a module for each, ``look`` is what
one request brings to it; ``visitors`` are roles, sessions and logins; ``store`` asks Redis, ``failures``
groups errors, ``runs`` are actions on many jobs, ``made`` sends the files that jobs made, ``sources`` asks
the mirror and the doctor; ``words`` and ``rendering`` show, ``addresses`` are URLs. What is done to jobs is
``beeq.operations``'.
"""
