"""What an input is: ``facts`` (the shape), found by ``examine`` from ``probe``'s and ``timeline``'s readings.

Not here: what the output shall be, which the operations choose from the facts.
"""
