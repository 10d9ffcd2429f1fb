"""Commands that diagnose one job, queues, Redis and this machine."""
