"""What works in the background for as long as a queue is open, and what watches over it.

``duty`` is what is known of one duty, ``supervised_task`` one that is a coroutine, ``duties`` those of one
owner with their watchdog. A duty that ends in any way is reported and begun again, a little later each time;
so is one that hangs. Duties live in an empty context: they outlive who began them, and what its context
variables hold. ``fence`` keeps code of others at arm's length, ``signal_thread`` hears of signals where a
loop may be blocked, ``loop_watch`` says that one is, ``end_guard`` ends the process where no thread may run.
Knows nothing of Redis, and of jobs no more than their ids.
"""
