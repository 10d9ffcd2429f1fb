"""Chooses an output's pictures: ``film`` (size and rate), ``colours`` and ``motion``. Pure.

    Facts ──film──> Film's size and rate ──motion, colours──> the filters that ffmpeg is asked for

Every picture of a film is shown in BT.709 colours of limited range, at one size, in square pixels, at one
constant rate. The operations choose from these; they write no filter for pictures themselves.
"""
