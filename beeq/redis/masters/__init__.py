"""Who is the master: connections to a server that is not any more, or that has gone silent, are left at once.

``roles`` reads what a server says it is, ``server_watch`` asks each connected server once a second,
``fleet`` is what a process knows of one master behind Sentinels, ``sentinels`` and ``promotion`` hear of it.
The state is the process's; each event loop has a watch of its own for its connections. Makes no connection:
``connector`` does.

A master that was replaced may go on acknowledging for seconds, until a Sentinel demotes it: what is saved
there meanwhile is lost. So a connection of a Sentinel URL is left when a Sentinel says who has been promoted,
and any connection when its server says that it is a replica.
"""
