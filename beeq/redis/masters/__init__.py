"""Finds the master, and drops connections to a server that no longer is it, or that has gone silent, at once.

``roles`` reads what a server says it is, ``server_watch`` asks each connected server once a second,
``fleet`` is what a process knows of one master behind Sentinels, ``sentinels`` and ``promotion`` learn of its
replacement. The state belongs to the process; each event loop has its own watch for its connections. The
connections are made by ``connector``.

A replaced master may go on acknowledging for seconds, until a Sentinel demotes it: what is saved there
meanwhile is lost. So a connection of a Sentinel URL is dropped when a Sentinel announces a promotion, and any
connection when its server says that it is a replica.
"""
