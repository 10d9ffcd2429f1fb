"""How a connection is made, for the connector alone.

``targets`` turns a URL or a client into connection settings, ``cluster`` finds the owner of a slot,
``misdirection`` recognises a plain URL of a cluster node or a Sentinel, ``look`` finds out why no connection
can be made, and ``dial_errors`` puts it into one sentence. ``apart`` copies a client for another thread's
loop.
"""
