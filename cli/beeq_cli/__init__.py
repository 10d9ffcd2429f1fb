"""The ``beeq`` command: parses, calls beeq, prints. What it does is beeq's; nothing is decided here."""
