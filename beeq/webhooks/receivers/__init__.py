"""Which receivers are called at the moment: not those that failed again and again, nor too many slow ones.

Here: circuits (``breaker``), the places of slow receivers (``places``), and both for one attempt
(``admission``). Not here: calling them, and what becomes of a job that is not admitted.
"""
