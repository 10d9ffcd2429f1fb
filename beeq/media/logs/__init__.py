"""What ffmpeg's log says, read so that no text of a media file can pass for ffmpeg's own words.

Not here: what an operation makes of it.
"""
