"""Mixes music into the sound of a video, or of a sound file, whose length it does not change."""

from collections.abc import Callable, Sequence

from beeq.media.errors import MediaFailed, shown
from beeq.media.ffmpeg import failure, reading, run
from beeq.media.formats import Container
from beeq.media.paths import NewFile, OpenFile
from beeq.media.probe import Facts, Video, picture_of, probe, sound_of
from beeq.media.stitch import ALIKE_SOUND, even, fps_of, written_as
from beeq.media.timeline import end_s


async def mix_with_music(
    sources: Sequence[OpenFile], target: NewFile, container: Container, reach: Callable[[float], None]
) -> None:
    """Write the first of two sources with the second mixed into its sound, cut or padded to its length.

    A container without pictures gets the sound alone. Sound and music are written at half their levels,
    so that their sum cannot clip; where the source has no sound, the music keeps its full level.
    """
    source, music = sources
    facts, track = await probe(source), sound_of(music, await probe(music))
    video = picture_of(source, facts) if container.video else facts.video
    measured = video or sound_of(source, facts)
    length_s = await end_s(source, measured) or facts.duration_s
    if not length_s:
        raise MediaFailed(f"{shown(source.given)} does not say how long it is")
    picture = _picture(source, video, container) if video is not None and container.video else []
    ended = await run(
        [
            *(*reading(source), *reading(music)),
            *("-filter_complex", sound_graph(facts, track.index, length_s), *picture, "-map", "[a]"),
            *(*container.audio, *written_as(container), target.url),
        ],
        [source.fd, music.fd, target.fd],
        on_time=lambda done_s: reach(100 * done_s / length_s),
    )
    if ended.exit_status:
        raise failure([source.given, music.given], ended)


def sound_graph(facts: Facts, music_index: int, length_s: float) -> str:
    """Return the filter graph from the sounds of both inputs to ``[a]``, which lasts ``length_s``."""
    music = f"[1:{music_index}]{ALIKE_SOUND},apad"
    cut = f"atrim=end={length_s:.6f}[a]"
    if facts.audio is None:
        return f"{music},{cut}"
    own = f"[0:{facts.audio.index}]{ALIKE_SOUND},apad"
    return f"{own}[own];{music}[music];[own][music]amix=inputs=2,{cut}"


def _picture(source: OpenFile, video: Video, container: Container) -> list[str]:
    """Return the options for the picture: a copy, if both containers are of one family."""
    chosen = ["-map", f"0:{video.index}"]
    if source.demuxer == container.demuxer and video.codec in container.copies:
        return [*chosen, "-c:v", "copy"]
    width, height = even(video.shown_size)
    return [*chosen, "-vf", f"scale={width}:{height},setsar=1,fps={fps_of(video)}", *container.video]
