"""The bodies of responses: unpacked, read as their pieces come, and bounded in memory while they are read."""
