"""What is wrong with a queue, its workers and its Redis, and how it is mended.

Looking changes nothing, but for the key on which the user's rights are tried. What is mended is looked at
again in the same atomic step, and left alone where it has changed.
"""
