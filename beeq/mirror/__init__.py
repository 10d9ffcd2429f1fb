"""The status mirror: the states of jobs in Redis, copied to MongoDB for other programs to read.

Here: the writer (``writer``), the reconciler for changes that nobody noted, such as Node's
(``reconciler``), the two borders (``outbox``: Redis; ``collection``: MongoDB), the documents
(``documents``, pure), ``mirror``, which runs it all, and what a person who looks is shown
(``history``; ``agreement``, pure). Not here: the notes themselves, which the Lua
scripts make in the same step as each change. No job ever waits for the mirror.
"""
