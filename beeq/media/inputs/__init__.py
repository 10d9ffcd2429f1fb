"""What an input is: ``facts`` (the shape), found by ``examine`` from what ``dump`` and ``timeline`` read.

Not here: what the output shall be, which the operations choose from the facts.
"""
