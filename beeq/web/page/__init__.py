"""The page: every queue that Redis holds, seen and steered in a browser. ``beeq.web.dashboard`` makes it.

HTML is made here, from templates; the script adds shortcuts and live numbers to what works without it.
``application`` checks access and dispatches; ``screens`` has a module for each screen, ``look`` is one
request; ``visitors`` are roles, sessions and logins; ``store`` reads Redis, ``failures`` groups errors,
``runs`` are actions on many jobs, ``made`` sends the files that jobs made, ``sources`` reads the mirror and
the doctor; ``words`` and ``rendering`` format, ``addresses`` are URLs. ``beeq.operations`` acts on jobs.
"""
