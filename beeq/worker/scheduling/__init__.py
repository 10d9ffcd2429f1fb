"""The worker's decisions: which call to Redis, which fetch, which handler comes next.

``scheduler`` decides, ``actions`` are its decisions; ``claims``, ``places``, ``ahead`` and
``pending_outcomes`` are its state, ``repairs`` the jobs to give back after failures. No IO, no clock of its
own, no asyncio here: ``beeq.worker.pump`` reports events, and carries the decisions out.

=================== ========================================================================================
event               what the scheduler returns, and what changes
=================== ========================================================================================
any                 in the end, everything else that is due. While a place is free, NoteBegins and Start of
                    jobs that were claimed ahead. READY: ExchangeCall while outcomes wait, a fetched job is to
                    be claimed, or places are free and the queue may have jobs; at an empty queue Fetch; with
                    nothing held, Idle. Not connected, or BROKEN: Recover. DRAINING: StopFetch; GiveBack of
                    jobs claimed ahead, and of a fetched job that was not started; Done once nothing is held.
                    OVER: nothing
outcome_ready       while other handlers run, DecideSoon: outcomes of one turn of the event loop share a call
replied             Recorded and Lost outcomes, Start of new jobs. Of a job that was started early also
                    ClaimKnown, and StopHandler if its claim was not granted
failed              what the call carried is held again, and sent in smaller calls (``pending_outcomes.py``);
                    BROKEN; DecideSoon. One that was refused alone: RetryLater, until retry_lonely
recovered           READY (recovery_failed: BROKEN); what unanswered calls claimed goes back unless it runs
fetched             ExchangeCall, StartEarly, DecideSoon if the record came along
fetch_rests         calls ask the queue until the fetch is tried again, after fetch_ended
give_back           the jobs are held, with their places, until given_back, or give_back_failed; lost ones go
claims_lost         StopHandler of each that Redis had granted; it gets no more heartbeats
check_ahead         GiveBack of jobs that were claimed ahead and have not begun in time
ahead_taken         of such jobs, which a thread has taken out, the places are free; or GiveBack
pause               PAUSED: as DRAINING, without Idle or Done. When the pause is over, TAKING
turn_ended          the decisions for which DecideSoon was due, unless they were made meanwhile
drain               DRAINING: nothing is claimed any more, outcomes are recorded
burst, look         no more fetches; the queue is asked again
=================== ========================================================================================

Invariants after every event:

* Places: handlers running + outcomes not recorded + jobs asked for, without one for each outcome that their
  call carries, + one for a fetch ≤ concurrency; with jobs claimed ahead (``ahead.py``) these, too, ≤
  concurrency + ``ahead_limit``. One exception: if Redis answers
  the call that claims a job started early with an error, it drops the outcome of that job, too; the outcome
  is held for another call, and takes one place more.
* Handlers running ≤ concurrency. Jobs begin in the order in which they were claimed; none of those claimed
  ahead after its time, or before the note of its begin was sent to Redis.
* At most two calls and one fetch are in flight; no fetch starts while a call is in flight that asks for jobs.
* The outcome of a job is sent after the call that claims it, over the same connection.
* Every claim ends once: recorded, given back, or lost. If the process dies, a stall check ends it.
* With something to do and a connection, something is in flight.
* One of Recover, GiveBack and StopFetch is under way at a time.
"""
