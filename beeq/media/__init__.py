"""Work on media files with ffmpeg, for callers who hold names chosen by strangers.

``formats`` says what may be read and written, ``paths`` opens it and nothing else, ``ffmpeg`` runs
the program, ``probe`` and ``packets`` read facts, ``frames``, ``stitch``, ``mix`` and ``assemble``
are the operations (``splice`` is how two of them avoid encoding), and ``service`` is the face they
show: on this machine, or by ``remote`` on another. Nothing in here knows jobs or queues.
"""
