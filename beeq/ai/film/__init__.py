"""Films from the AI provider.

Here: a video from its order to its file (``videos``), the picture it begins with (``reference``), and what
the provider's responses say of it (``states``).
"""
