"""Confines ffmpeg: it decodes untrusted files, so it gets only what its run needs.

Each run begins as a small program (``launcher``) that gives up rights and then becomes ffmpeg. Always: no new
privileges, hardly a capability, limits of memory, file size and CPU time, and it ends with its worker. Where
the kernel and the worker's rights allow it: Landlock (it reads its inputs and its own libraries, and writes
its output), an empty network namespace, and a filter of system calls (no sockets, no other programs). Which
of these work is tested once for each ffmpeg (``confinement``), and logged.

Here, too: the plan of a run (``plan``), the files that ffmpeg may open (``files``), the filter (``seccomp``),
and the end of a run that does not advance (``watchdog``). Not here: the runs themselves
(``beeq.media.ffmpeg``).
"""
