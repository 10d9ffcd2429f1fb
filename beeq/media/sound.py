"""The common form of sounds, as ffmpeg's filters: 48 kHz stereo, each sound at its own level. Pure.

A sound of one channel is as loud in both as it was alone (ffmpeg's own way is 3 dB quieter). More than two
channels are mixed with so much headroom that they cannot clip, however loud all of them are at once.
"""

from collections.abc import Sequence
from fractions import Fraction

from beeq.media.inputs.facts import Audio, Facts, Video

SAMPLE_RATE_HZ = 48_000
_FORMAT = "aformat=sample_fmts=fltp:channel_layouts=stereo"
#: One that starts late gets silence before it. ``rematrix_maxval``: the weights of a channel's sources add up
#: to 1 at most.
_ALIKE = f"aresample={SAMPLE_RATE_HZ}:async=1:first_pts=0:rematrix_maxval=1,{_FORMAT}"
_FIRST_IN_BOTH = "pan=stereo|c0=c0|c1=c0"
_SILENCE = f"anullsrc=r={SAMPLE_RATE_HZ}:cl=stereo"
#: The silence of a mute clip of which no length at all is known.
_SOME_SILENCE_S = 0.01


def alike_sound(sound: Audio) -> str:
    """Return the filters that give a sound the common form."""
    # The first channel of an ambisonic sound is what comes from all sides; ffmpeg cannot mix the others.
    if sound.channels == 1 or sound.layout.startswith("ambisonic"):
        return f"{_FIRST_IN_BOTH},{_ALIKE}"
    return _ALIKE


def lasting(length_s: float) -> str:
    """Return the filters that cut or pad a sound to a length."""
    # Not endless padding: of a stream without a sample, ffmpeg would try to pad nothing for ever.
    return f"apad=whole_dur={length_s:.6f},atrim=end={length_s:.6f}"


def sound_of_clip(number: int, clip: Facts, video: Video, length_s: Fraction | None) -> str:
    """Return the filters from the ``number``-th input to its sound, or silence, for ``length_s``.

    With None the sound lasts as long as it is, silence as long as the picture.
    """
    if length_s is not None:
        cut = lasting(float(length_s))
        if clip.audio is None:
            return f"{_SILENCE},{cut},{_FORMAT}"
        return f"[{number}:{clip.audio.index}]{alike_sound(clip.audio)},{cut}"
    if clip.audio is not None:
        return f"[{number}:{clip.audio.index}]{alike_sound(clip.audio)}"
    times = video.timeline
    # Decoding times may begin before 0; their distance is the length.
    known_s = times and (times.end_s if times.is_timed else times.end_s - times.begin_s)
    # A mute clip lasts as long as its picture. ``concat`` pads all but the last.
    return f"{_SILENCE},atrim=end={known_s or clip.duration_s or _SOME_SILENCE_S:.3f},{_FORMAT}"


def copied_sound_graph(clips: Sequence[Facts], videos: Sequence[Video], lengths_s: Sequence[Fraction]) -> str:
    """Return the filter graph from the clips' sounds, the inputs from the second on, to ``[a]``.

    Each is cut or padded to the length of its picture.
    """
    chains, pads = [], []
    for number, (clip, video, length_s) in enumerate(zip(clips, videos, lengths_s, strict=True), 1):
        chains.append(f"{sound_of_clip(number, clip, video, length_s)}[a{number}]")
        pads.append(f"[a{number}]")
    return ";".join([*chains, f"{''.join(pads)}concat=n={len(clips)}:v=0:a=1[a]"])


def audio_graph(sounds: Sequence[Audio]) -> str:
    """Return the filter graph from the sounds of the inputs, in order, to ``[a]``."""
    chains = [
        f"[{number}:{sound.index}]{alike_sound(sound)}[a{number}]" for number, sound in enumerate(sounds)
    ]
    pads = "".join(f"[a{number}]" for number in range(len(sounds)))
    return ";".join([*chains, f"{pads}concat=n={len(sounds)}:v=0:a=1[a]"])
