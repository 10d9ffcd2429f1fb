"""Finds faults of a queue, its workers and its Redis, and repairs them.

Looking changes nothing, but for the key on which the user's rights are tried. A repair checks its object
again in the same atomic step, and leaves it alone if it has changed.
"""
