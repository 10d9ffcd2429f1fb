"""Operators' actions on many jobs of a queue: find, retry, remove, run, cancel and purge them.

All of them work in pages, so that a queue of a million jobs holds up neither Redis nor this process.
"""
