"""``beeq demo``: the command, its scenes, and the peers on loopback that play the outside world."""
