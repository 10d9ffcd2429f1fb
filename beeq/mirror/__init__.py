"""The status mirror: the states of jobs in Redis, copied to MongoDB for other programs to read.

Here: the writer (``writer``), the reconciler for changes without a note, such as Node's (``reconciler``), the
two borders (``outbox``: Redis; ``collection``: MongoDB), the documents (``documents``, pure), ``mirror``,
which runs it all, and reading it for a person (``history``; ``agreement``, pure). Not here: the notes
themselves, which the Lua
scripts make in the same step as each change. No job ever waits for the mirror.
"""
