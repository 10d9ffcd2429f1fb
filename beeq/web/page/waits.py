"""How long a screen waits for background work before it shows what is known so far. In seconds.

They are in one place because the overview waits for four of them in turn, and must begin within 300 ms.
"""

#: For the names of queues, and for their counts.
NAMES_S, COUNTS_S = 0.05, 0.1
#: For active jobs that have lost their worker, while the overview waits for the kinds of errors.
OVERVIEWS_LOSSES_S = 0.08
#: For the kinds of errors: on the overview, and on their own screen.
OVERVIEWS_FAILURES_S, FAILURES_S = 0.08, 0.15
#: For the last hours of the queues.
TRENDS_S = 0.05
#: For workers and running jobs.
ACTIVITY_S = 0.2
#: For a search.
SEARCH_S = 0.15
