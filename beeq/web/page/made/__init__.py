"""Finds the pictures, sounds and films that jobs of the built-in queues made, and sends them to browsers.

``kinds`` finds a file's kind by its content, and its type for a browser; ``files`` finds those that a job's
result names, below the media root; ``serving`` sends one, or a part of it.
"""
