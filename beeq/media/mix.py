"""Mixes music into the sound of a video, or of a sound file, whose length it does not change.

The source's sound keeps its level; the music is quieter under it (``parameters.musicVolume``). No peak of
the result is above -1 dB, between the samples neither: a limiter that sees four times as many samples leaves
some room for what a lossy encoder adds, and the written file is measured. If its encoder has added more, the
file is written again with as much more room.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from beeq.jobs import MediaParameters
from beeq.media.errors import MediaFailed, MediaRefused, shown
from beeq.media.ffmpeg import FFmpeg, MediaWork
from beeq.media.formats import Container
from beeq.media.inputs.bounds import check_output, check_said
from beeq.media.inputs.examine import examine
from beeq.media.inputs.facts import Audio, Video, own_sound_of, picture_of, sound_of
from beeq.media.outputs.colours import TAGGED, decoded_by, is_plain
from beeq.media.outputs.film import alike, look_of
from beeq.media.outputs.motion import pictures_of
from beeq.media.paths import NewFile, OpenFile
from beeq.media.sound import SAMPLE_RATE_HZ, alike_sound, lasting
from beeq.media.stitch import written_as

#: The music's level under another sound, without ``musicVolume``, in dB.
UNDER_A_SOUND_DB = -12.0
#: How far ``ducking: true`` lowers the music at most, in dB.
DUCKING_DB = 12.0
#: Music up to this length is repeated from memory, 23 MB a minute; longer music is read again.
REPEATED_FROM_MEMORY_S = 600.0
MAX_PEAK_DB = -1.0
_LIMIT_DB = -2.0
#: Measuring is exact to some hundredths.
_SLACK_DB = 0.2
_MAX_REWRITES = 3
_MORE_SAMPLES = f"aresample={4 * SAMPLE_RATE_HZ}"
#: A quiet voice of -40 dB lowers the music, from 20 ms after its beginning until half a second after its end.
_DUCKED = "sidechaincompress=threshold=0.01:ratio=20:attack=20:release=500:link=maximum"
#: ``sidechaincompress`` ends when either input has ended, even if it still holds some of the other. With some
#: more of both, which is asked for only when all before is through, and cut off behind it, nothing is lost.
_LONGER = "apad=pad_dur=1"
_PEAK = re.compile(r"Peak level dB: (-?\d{1,4}\.\d{1,9})")


@dataclass(frozen=True, slots=True)
class Mix:
    """What is mixed: the source's own sound, if it has one, and music, for ``length_s``."""

    own: Audio | None
    music: Audio
    length_s: float
    parameters: MediaParameters

    def graph(self, limit_db: float = _LIMIT_DB) -> str:
        """Return the filter graph from the sounds of both inputs to ``[a]``."""
        end = (
            f"{_MORE_SAMPLES},alimiter=limit={_ratio(limit_db):.6f}:level=false:latency=true,"
            f"aresample={SAMPLE_RATE_HZ},{lasting(self.length_s)}[a]"
        )
        music = self._music()
        if self.own is None:
            return f"{music},{end}"
        own = f"[0:{self.own.index}]{alike_sound(self.own)},{lasting(self.length_s)}"
        mixed = f"[own][music]amix=inputs=2:normalize=0,{end}"
        if not self.ducking_db:
            return f"{own}[own];{music}[music];{mixed}"
        # The compressor alone would silence the music; some of it remains beside that.
        ducked = f"{_DUCKED}:mix={1 - _ratio(-self.ducking_db):.6f},atrim=end={self.length_s:.6f}"
        return (
            f"{own},asplit=2[own][short];[short]{_LONGER}[key];{music},{_LONGER}[full];"
            f"[full][key]{ducked}[music];{mixed}"
        )

    @property
    def ducking_db(self) -> float:
        """How far the music is lowered while the source is heard, in dB."""
        wanted = self.parameters.ducking
        return DUCKING_DB * wanted if isinstance(wanted, bool) else wanted

    @property
    def music_inputs(self) -> int:
        """How many inputs, from the second on, are the music: 1, or as often as long music is heard."""
        long_s = self._long_music_s
        return math.ceil(self.length_s / long_s) if self.parameters.loop and long_s else 1

    @property
    def _long_music_s(self) -> float | None:
        """The length of the music, if that is known and too long to be repeated from memory."""
        times = self.music.timeline
        known_s = (times and times.shown_end_s) or 0.0
        return known_s if known_s > REPEATED_FROM_MEMORY_S else None

    def _music(self) -> str:
        """Return the filters from the music, to its level, its fades and the length of the mix."""
        wanted, times = self.parameters, self.music.timeline
        volume_db = wanted.music_volume
        if volume_db is None:
            volume_db = 0.0 if self.own is None else UNDER_A_SOUND_DB
        begin, filters = f"[1:{self.music.index}]", [alike_sound(self.music)]
        end_s, count = self.length_s, self.music_inputs
        if wanted.loop and count > 1:
            chains = [f"[{n}:{self.music.index}]{filters[0]}[m{n}];" for n in range(1, count + 1)]
            pads = "".join(f"[m{n}]" for n in range(1, count + 1))
            begin, filters = f"{''.join(chains)}{pads}", [f"concat=n={count}:v=0:a=1"]
        elif wanted.loop and self._long_music_s is None:
            filters.append("aloop=loop=-1:size=2147483647")
        elif not wanted.loop and times is not None and times.shown_end_s:
            end_s = min(end_s, times.shown_end_s)
        filters.append(f"volume={volume_db:g}dB")
        if wanted.fade_in:
            filters.append(f"afade=t=in:st=0:d={wanted.fade_in:.6f}")
        if wanted.fade_out:
            begin_s = max(0.0, end_s - wanted.fade_out)
            filters.append(f"afade=t=out:st={begin_s:.6f}:d={end_s - begin_s:.6f}")
        return begin + ",".join([*filters, lasting(self.length_s)])


async def mix_with_music(
    work: MediaWork, sources: Sequence[OpenFile], target: NewFile, container: Container
) -> None:
    """Write the first of two sources with the second mixed into its sound, cut or padded to its length.

    A container without pictures gets the sound alone.
    """
    source, music = sources
    ffmpeg, parameters = work.ffmpeg, work.parameters
    facts = await examine(ffmpeg, source, parameters)
    track = sound_of(music, await examine(ffmpeg, music, parameters))
    own = own_sound_of(source, facts)
    video = picture_of(source, facts) if container.video else facts.video
    if video is not None and video.is_still:
        raise MediaRefused(f"{shown(source.given)} is a still: it does not say how long it is")
    measured = video or sound_of(source, facts)
    times = measured.timeline
    length_s = (times and times.shown_end_s) or facts.duration_s
    if not length_s:
        raise MediaFailed(f"{shown(source.given)} does not say how long it is")
    check_output(ffmpeg.limits, length_s)
    picture = _picture(source, video, container, parameters) if video is not None and container.video else []
    decoder = decoded_by(video) if video is not None and picture else []
    mix, limit_db = Mix(own, track, length_s, parameters), _LIMIT_DB
    for _ in range(1 + _MAX_REWRITES):
        ended = await ffmpeg.run(
            [
                *(*ffmpeg.reading(source, *decoder), *(ffmpeg.reading(music) * mix.music_inputs)),
                *("-filter_complex", mix.graph(limit_db), *picture, "-map", "[a]"),
                *(*container.audio, *written_as(ffmpeg, container), target.url),
            ],
            [source.fd, music.fd, target.fd],
            on_time=lambda done_s: work.reach(100 * done_s / length_s),
            media_s=length_s,
        )
        check_said(ffmpeg.limits, [source.given, music.given], ended)
        if ended.exit_status:
            raise ffmpeg.failure([source.given, music.given], ended)
        peak_db = await _true_peak_db(ffmpeg, target.reading(container.demuxer), length_s)
        if peak_db is None or peak_db <= MAX_PEAK_DB:
            return
        limit_db -= peak_db - MAX_PEAK_DB + _SLACK_DB


async def _true_peak_db(ffmpeg: FFmpeg, written: OpenFile, length_s: float) -> float | None:
    """Return the highest level of a file's sound, between its samples too; None for silence."""
    # As floating point numbers to the end: lossy sounds may be above full scale, where whole numbers stop.
    measured = (
        f"{_MORE_SAMPLES},aformat=sample_fmts=fltp,astats=measure_perchannel=none:measure_overall=Peak_level"
    )
    ended = await ffmpeg.run(
        [*ffmpeg.reading(written), "-map", "0:a:0", "-af", measured, "-f", "null", "-"],
        [written.fd],
        log_level="info",
        media_s=length_s,
    )
    found = _PEAK.search(ended.said)
    return float(found[1]) if found else None


def _ratio(level_db: float) -> float:
    return float(10 ** (level_db / 20))


def _picture(source: OpenFile, video: Video, container: Container, parameters: MediaParameters) -> list[str]:
    """Return the options for the picture: a copy, if both containers are of one family."""
    chosen = ["-map", f"0:{video.index}"]
    is_family = source.demuxer == container.demuxer and video.codec in container.copies
    if is_family and is_plain(video) and parameters.fps is None:
        return [*chosen, "-c:v", "copy"]
    look = look_of([video], parameters)
    filters = f"{alike(video, look, pictures_of(video, look.rate))},{TAGGED}"
    return [*chosen, "-vf", filters, *container.encoder(look.size)]
