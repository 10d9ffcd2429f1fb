"""Work on media files with ffmpeg, for callers who hold names chosen by strangers.

``formats`` says what may be read and written, ``paths`` opens it and nothing else, ``ffmpeg`` runs
the program, ``probe`` reads facts, ``frames``, ``stitch`` and ``mix`` are the operations, and
``service`` is the face they show: on this machine, or by ``remote`` on another. Nothing in here
knows jobs or queues.
"""
