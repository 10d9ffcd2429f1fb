"""The ``beeq`` command: parses options, calls the library, prints."""
