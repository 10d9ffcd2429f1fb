"""``beeq demo``: the command, its scenes, and loopback servers in place of the outside world."""
