"""How a connection is made, for the connector alone.

``targets`` says whom a URL or a client leads to, ``cluster`` finds the owner of a slot, ``misdirection`` says
what a plain URL leads to if not to a plain server, ``look`` what answers where no connection can be made, and
``dial_errors`` puts it into one sentence. ``apart`` makes of a client what another thread's loop may use.
"""
