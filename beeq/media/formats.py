"""The containers that beeq reads, by content, its decoders, and the formats it writes, by suffix. No IO.

The first bytes of a file choose its demuxer, and ffmpeg uses no other. So playlists, concat scripts and
other files that name further files are refused under any name.
"""

from collections.abc import Callable
from dataclasses import dataclass

from beeq.media.inputs.leading import sound_in

#: The bytes that ``demuxer_of`` reads: three packets of the longest transport stream.
HEAD_BYTES = 1024
_TS_PACKET_BYTES = (188, 192, 204)

#: An offset, the bytes there, and the demuxer for the file.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x1aE\xdf\xa3", "matroska"),
    (0, b"OggS", "ogg"),
    (0, b"fLaC", "flac"),
    (0, b"FLV\x01", "flv"),
    (0, b"GIF87a", "gif"),
    (0, b"GIF89a", "gif"),
    (0, b"DKIF", "ivf"),
    (0, b"YUV4MPEG2 ", "yuv4mpegpipe"),
    (0, b"nut/multimedia container\0", "nut"),
    (0, b"caff", "caf"),
    (0, b"#!AMR\n", "amr"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02\x01\x01", "mxf"),
    (0, b"\x89PNG\r\n\x1a\n", "png_pipe"),
    (0, b"\xff\xd8\xff", "jpeg_pipe"),
    (0, b"\0\0\x01\xba", "mpeg"),
    (0, b"\0\0\x01\xb3", "mpegvideo"),
)
#: Kinds of RIFF and IFF files.
_CHUNKED: dict[tuple[bytes, bytes], str] = {
    (b"RIFF", b"WAVE"): "wav",
    (b"RIFX", b"WAVE"): "wav",
    (b"RF64", b"WAVE"): "wav",
    (b"RIFF", b"AVI "): "avi",
    (b"RIFF", b"WEBP"): "webp_pipe",
    (b"FORM", b"AIFF"): "aiff",
    (b"FORM", b"AIFC"): "aiff",
}
#: Boxes that a QuickTime or MP4 file begins with.
_BOXES = frozenset((b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx", b"moof"))
#: Sizes of the headers of a bitmap.
_BITMAP_HEADERS = frozenset((12, 40, 52, 56, 64, 108, 124))
_H264_FIRST = frozenset((6, 7, 9))  # extra information, sequence parameters, access unit delimiter
_HEVC_FIRST = frozenset((32, 35))  # video parameters, access unit delimiter


#: Pictures of more pixels are large: of 8192x4320 an encoder that looks ahead as usual holds 5 GB.
_LARGE_PIXELS = 4096 * 2304
#: How many pictures of them an encoder looks ahead.
_AHEAD_OF_LARGE = {"libx264": ("-rc-lookahead", "10"), "libvpx-vp9": ("-lag-in-frames", "8")}
#: The decoders that may be used, by ffmpeg's names, which differ between builds: for what cameras, phones,
#: browsers, recorders, editors and speech programs write. Of the others, of games and of forgotten programs,
#: no user's file needs one, and any may be the one that breaks.
DECODERS = (
    *("h264", "libopenh264", "hevc", "av1", "libdav1d", "libaom-av1", "vp8", "libvpx", "vp9", "libvpx-vp9"),
    *(
        "mpeg1video",
        "mpeg2video",
        "mpegvideo",
        "mpeg4",
        "h263",
        "h263p",
        "h263i",
        "flv",
        "vp6",
        "vp6f",
        "vp6a",
    ),
    *("msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2", "wmv3", "vc1", "theora", "vp3", "svq1", "svq3"),
    *("prores", "dnxhd", "cfhd", "dvvideo", "hap", "qtrle", "ffv1", "huffyuv", "ffvhuff", "utvideo"),
    *("rawvideo", "v210", "r210", "yuv4", "ayuv", "cinepak", "jpeg2000", "libopenjpeg"),
    *("mjpeg", "mjpegb", "png", "apng", "gif", "webp", "webp_anim", "bmp"),
    *("aac", "aac_fixed", "aac_latm", "libfdk_aac", "mp3", "mp3float", "mp2", "mp2float", "mp1", "mp1float"),
    *("opus", "libopus", "vorbis", "libvorbis", "flac", "alac", "wavpack", "tta", "speex", "libspeex"),
    *(
        "ac3",
        "ac3_fixed",
        "eac3",
        "dca",
        "truehd",
        "mlp",
        "wmav1",
        "wmav2",
        "wmapro",
        "wmalossless",
        "wmavoice",
    ),
    *("amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "gsm", "gsm_ms", "libgsm", "libgsm_ms"),
    *(
        "nellymoser",
        "qdm2",
        "adpcm_ms",
        "adpcm_ima_wav",
        "adpcm_ima_qt",
        "adpcm_swf",
        "g722",
        "g726",
        "g726le",
    ),
    *("pcm_u8", "pcm_s8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be"),
    *("pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_s64le", "pcm_s64be", "pcm_alaw", "pcm_mulaw"),
    *(
        "pcm_bluray",
        "pcm_dvd",
        "pcm_s16le_planar",
        "pcm_s16be_planar",
        "pcm_s24le_planar",
        "pcm_s32le_planar",
    ),
    "pcm_s8_planar",
)


@dataclass(frozen=True, slots=True)
class Container:
    """A suffix's container: muxer, demuxer, and the encoders with their options."""

    muxer: str
    demuxer: str
    video: tuple[str, ...] = ()
    audio: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    #: Video codecs that are copied, not encoded again, if they come from a container of the same family.
    copies: frozenset[str] = frozenset()

    def encoder(self, size: tuple[int, int]) -> list[str]:
        """Return the video encoder for pictures of a size, with its options."""
        is_large = size[0] * size[1] > _LARGE_PIXELS
        return [*self.video, *(_AHEAD_OF_LARGE[self.video[1]] if is_large and self.video else ())]


@dataclass(frozen=True, slots=True)
class ImageFormat:
    """A picture suffix's format: encoder and demuxer."""

    encoder: tuple[str, ...]
    demuxer: str
    pixels: str  # the encoder's pixel format


_H264 = ("-c:v", "libx264", "-preset", "fast", "-crf", "20", "-pix_fmt", "yuv420p")
_VP9 = ("-c:v", "libvpx-vp9", "-b:v", "0", "-crf", "31", "-deadline", "good", "-cpu-used", "4")
_VP9_THREADS = ("-row-mt", "1", "-pix_fmt", "yuv420p")
_AAC = ("-c:a", "aac", "-b:a", "192k")
_OPUS = ("-c:a", "libopus", "-b:a", "128k")
#: Put the index first, so that players can start before they have the whole file.
_FASTSTART = ("-movflags", "+faststart")
_MP4_COPIES = frozenset(("h264", "hevc", "av1"))

VIDEO_CONTAINERS: dict[str, Container] = {
    ".mp4": Container("mp4", "mov", _H264, _AAC, _FASTSTART, _MP4_COPIES),
    ".mov": Container("mov", "mov", _H264, _AAC, _FASTSTART, _MP4_COPIES - {"av1"}),
    ".mkv": Container("matroska", "matroska", _H264, _AAC, (), _MP4_COPIES | {"vp8", "vp9"}),
    ".webm": Container("webm", "matroska", _VP9 + _VP9_THREADS, _OPUS, (), frozenset(("vp8", "vp9", "av1"))),
}
AUDIO_CONTAINERS: dict[str, Container] = {
    ".mp3": Container("mp3", "mp3", audio=("-c:a", "libmp3lame", "-q:a", "2")),
    ".m4a": Container("ipod", "mov", audio=_AAC, options=_FASTSTART),
    ".aac": Container("adts", "aac", audio=_AAC),
    ".wav": Container("wav", "wav", audio=("-c:a", "pcm_s16le")),
    ".flac": Container("flac", "flac", audio=("-c:a", "flac")),
    ".ogg": Container("ogg", "ogg", audio=_OPUS),
    ".opus": Container("opus", "ogg", audio=_OPUS),
}
#: The formats of an assembled film, by their names in a job.
FILM_CONTAINERS: dict[str, Container] = {
    name: VIDEO_CONTAINERS[f".{name}"] for name in ("mp4", "webm", "mov")
}
_JPEG = ImageFormat(("-c:v", "mjpeg", "-q:v", "2"), "jpeg_pipe", "yuvj420p")
IMAGE_FORMATS: dict[str, ImageFormat] = {
    ".png": ImageFormat(("-c:v", "png"), "png_pipe", "rgb24"),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": ImageFormat(("-c:v", "libwebp", "-quality", "90"), "webp_pipe", "bgra"),
}


def demuxer_of(read: Callable[[int, int], bytes]) -> str | None:
    """Return the demuxer for a file; None if beeq does not read its kind. ``read`` gets offset and size."""
    found = content_of(read)
    return None if found is None else found[0]


def content_of(read: Callable[[int, int], bytes]) -> tuple[str, int] | None:
    """Return the demuxer for a file, and the offset of its content; None if beeq does not read its kind."""
    head = read(0, HEAD_BYTES)
    demuxer = _by_head(head)
    return (demuxer, 0) if demuxer is not None else sound_in(read)


def _by_head(head: bytes) -> str | None:
    for offset, magic, demuxer in _MAGIC:
        if head.startswith(magic, offset):
            return demuxer
    if (head[:4], head[8:12]) in _CHUNKED:
        return _CHUNKED[head[:4], head[8:12]]
    if head[4:8] in _BOXES:
        return "mov"
    if _is_transport_stream(head):
        return "mpegts"
    return _bitmap(head) or _raw_video(head) or _raw_audio(head)


def _is_transport_stream(head: bytes) -> bool:
    # Packets of 192 bytes have a time stamp before the sync byte.
    return any(
        all(head[place : place + 1] == b"G" for place in range(4 * (size == 192), 3 * size, size))  # noqa: PLR2004 - see above
        for size in _TS_PACKET_BYTES
    )


def _bitmap(head: bytes) -> str | None:
    is_known = head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BITMAP_HEADERS
    return "bmp_pipe" if is_known else None


def _raw_video(head: bytes) -> str | None:
    start = head[:5].find(b"\0\0\x01")
    if start not in (0, 1) or len(head) <= start + 3:
        return None
    unit = head[start + 3]
    if unit & 0x9F in _H264_FIRST:
        return "h264"
    return "hevc" if unit >> 1 in _HEVC_FIRST else None


def _raw_audio(head: bytes) -> str | None:
    """Recognise MPEG audio and ADTS by the bits of their frames' sync word."""
    if len(head) < 2 or head[0] != 0xFF:  # noqa: PLR2004 - the sync word
        return None
    if head[1] & 0xF6 == 0xF0:  # noqa: PLR2004 - layer 0 is ADTS
        return "aac"
    has_layer, has_version = head[1] & 0x06 != 0, head[1] & 0x18 != 0x08  # noqa: PLR2004 - reserved values
    return "mp3" if head[1] & 0xE0 == 0xE0 and has_layer and has_version else None  # noqa: PLR2004 - sync word
