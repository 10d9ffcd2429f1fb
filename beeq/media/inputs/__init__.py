"""Examines inputs: ``examine`` finds ``facts`` (the result) from what ``dump`` and ``timeline`` read.

Not here: the output, which the operations choose from the facts.
"""
