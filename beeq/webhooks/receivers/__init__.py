"""Decides which receivers are called now: not those that failed repeatedly, nor too many slow ones.

Here: circuits (``breaker``), the places of slow receivers (``places``), and both for one attempt
(``admission``). Not here: calling them, and the outcome of a job that is not admitted.
"""
