"""Commands that say what is wrong: with one job, with a queue, with Redis and this machine."""
