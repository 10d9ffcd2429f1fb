"""Reads ffmpeg's log so that no text of a media file can pass for ffmpeg's own words.

Not here: the operations' reactions.
"""
