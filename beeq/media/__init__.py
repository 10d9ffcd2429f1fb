"""Work on media files with ffmpeg, for untrusted file names.

Here: the formats (``formats``), opening files safely (``paths``), running the program (``ffmpeg``) within
bounds (``limits``, ``sandbox``), reading its log (``logs``), examining inputs (``inputs``), the common form
of sounds (``sound``), the operations (``frames``, ``stitch``, ``mix``, ``assemble``; ``stream_copy`` spares
two of them encoding), and ``service``, their interface: on this machine, or by ``remote`` on another. Not
here: jobs and queues, which ``beeq.processors`` knows.
"""
