"""Films from the AI provider.

Here: a video from its request to its file (``videos``), the picture it begins with (``reference``), and its
state in the provider's responses (``states``).
"""
