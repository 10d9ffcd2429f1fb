"""Work on media files with ffmpeg, for callers whose file names come from strangers.

Here: what may be read and written (``formats``), opening it and nothing else (``paths``), running the
program (``ffmpeg``) within bounds (``limits``, ``sandbox``), what it complains of (``logs``), what an input
is (``inputs``), the common form of sounds (``sound``), the operations (``frames``, ``stitch``, ``mix``,
``assemble``; ``stream_copy`` saves two of them encoding), and ``service``, their interface: on this machine,
or by ``remote`` on another. Not here: jobs and queues, which ``beeq.processors`` knows.
"""
