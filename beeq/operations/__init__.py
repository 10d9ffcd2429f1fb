"""What operators do with many jobs of a queue: find them, retry, remove, run, cancel and purge them.

Everything goes in pages, so that a queue of a million jobs holds up neither Redis nor this process.
"""
