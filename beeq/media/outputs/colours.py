"""Converts pictures of any colours to BT.709 of limited range, or to an image's, by ffmpeg's filters. Pure.

What a filter or an encoder guesses where a picture is not described differs between ffmpeg's versions, so
each conversion names both sides. ``scale`` converts matrices and ranges in all versions alike; what goes
beyond (wider primaries, HDR) takes ``zscale`` and ``tonemap``. The primaries of BT.601 and BT.709 count as
the same, as players do.
"""

from dataclasses import dataclass

from beeq.media.inputs.facts import Video

#: Undescribed pictures of as many lines, or more, have the colours of high definition.
_HIGH_DEFINITION_LINES = 720
_BT709, _BT601, _BT2020 = "bt709", "bt601", "bt2020"
#: ``scale``'s names of the matrices.
_MATRICES = {
    "bt709": _BT709,
    "bt470bg": _BT601,
    "smpte170m": _BT601,
    "fcc": "fcc",
    "smpte240m": "smpte240m",
    "bt2020nc": _BT2020,
    "bt2020c": _BT2020,
}
#: The matrix of undescribed pictures by their primaries.
_MATRICES_OF_PRIMARIES = {
    "bt709": _BT709,
    "smpte432": _BT709,
    "smpte431": _BT709,
    "bt470bg": _BT601,
    "smpte170m": _BT601,
    "bt2020": _BT2020,
}
#: ``zscale``'s names of primaries that are clearly wider than those of BT.709.
_WIDE = {"bt2020": "2020", "smpte432": "smpte432", "smpte431": "smpte431"}
#: ``zscale``'s names of the transfers of HDR.
_HDR = {"smpte2084": "smpte2084", "arib-std-b67": "arib-std-b67"}
#: Diffuse white in HDR, in cd/m²; it becomes a bright grey, below what is brighter still.
_WHITE_NITS = 203
#: What is mapped to full white, in cd/m²: the brightest that most films have.
_PEAK_NITS = 1000
#: Up to this part of diffuse white pictures look as in HDR; above it, highlights are compressed.
_UNTOUCHED = 0.5
#: Exact in each pixel; without these, ``scale`` is some values off.
_EXACT = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
#: What a film's pictures are said to be, and are.
TAGGED = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
#: The same for pictures that are copied.
COPIED_TAGS = (
    "h264_metadata=colour_primaries=1:transfer_characteristics=1:matrix_coefficients=1"
    ":video_full_range_flag=0"
)
#: The filters' answer for each pixel format that images are written in.
_IMAGE_PIXELS = {
    "yuvj420p": f"out_color_matrix={_BT601}:out_range=pc:{_EXACT},format=yuvj420p",
    "rgb24": f"out_range=pc:{_EXACT},format=rgb24",
    "bgra": f"out_range=pc:{_EXACT},format=bgra",
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a picture's numbers mean, decided also where nothing describes them.

    ``matrix`` is in ``scale``'s words, and empty for RGB; ``primaries`` and ``transfer`` are in ``zscale``'s,
    and None for those of SDR television.
    """

    matrix: str
    is_full: bool
    primaries: str | None = None
    transfer: str | None = None


_STANDARD = Meaning(_BT709, is_full=False)
_RGB = Meaning("", is_full=True)


def meaning_of(video: Video) -> Meaning:
    """Return what the numbers of a video's pictures mean."""
    said = video.colours
    transfer = _HDR.get(said.transfer or "")
    primaries = _WIDE.get(said.primaries or "")
    if transfer and said.primaries is None:
        primaries = _WIDE["bt2020"]
    if _is_rgb(video):
        return Meaning("", is_full=True, primaries=primaries, transfer=transfer)
    is_full = said.range == "pc" or video.pixel_format.startswith("yuvj")
    matrix = _MATRICES.get(said.matrix or "") or _MATRICES_OF_PRIMARIES.get(said.primaries or "")
    if matrix is None:
        is_high = video.height >= _HIGH_DEFINITION_LINES and not video.is_still
        matrix = _BT2020 if transfer else _BT709 if is_high else _BT601
    if matrix == _BT2020 and said.primaries is None:
        primaries = _WIDE["bt2020"]
    return Meaning(matrix, is_full, primaries, transfer)


def is_standard(video: Video) -> bool:
    """Return whether a video's pictures have a film's colours already, described or not."""
    return video.pixel_format == "yuv420p" and not video.has_alpha and meaning_of(video) == _STANDARD


def is_plain(video: Video) -> bool:
    """Return whether players of all kinds show the pictures alike: 8 bits, neither HDR nor transparent."""
    meaning = meaning_of(video)
    is_usual = video.pixel_format in ("yuv420p", "yuvj420p") and not video.has_alpha
    return is_usual and not meaning.primaries and not meaning.transfer


def is_described(video: Video) -> bool:
    """Return whether the video says that its colours are a film's."""
    said = video.colours
    return (said.range, said.matrix, said.primaries, said.transfer) == ("tv", *("bt709",) * 3)


def to_film(video: Video, size: tuple[int, int]) -> str:
    """Return the filters that give a video's pictures a size and a film's colours, over black."""
    over_black, meaning = _over_black(video)
    if meaning.primaries or meaning.transfer:
        return f"{over_black}{_narrowed(size, meaning)}:m=709:r=limited,format=yuv420p"
    if is_described(video) and not over_black:
        return f"scale={size[0]}:{size[1]},format=yuv420p"
    exact = "" if meaning == _STANDARD else f":{_EXACT}"
    scaled = f"{_scaled(size, meaning)}:out_color_matrix={_BT709}:out_range=tv{exact}"
    return f"{over_black}{scaled},format=yuv420p"


def to_image(video: Video, size: tuple[int, int], pixels: str) -> str:
    """Return the filters that give a video's pictures a size and an image's pixel format, over black."""
    to_rgb, meaning = _over_black(video)
    if meaning.primaries or meaning.transfer:
        to_rgb, meaning = f"{to_rgb}{_narrowed(size, meaning)}:m=gbr:r=full,format=gbrp,", _RGB
    return f"{to_rgb}{_scaled(size, meaning)}:{_IMAGE_PIXELS[pixels]}"


def decoded_by(video: Video) -> list[str]:
    """Return the options of an input whose pictures are decoded, to be filtered.

    Where a picture has another size, the filters go on, and do not begin again; see ``film.of_one_size``. Not
    for pictures that are turned before all else: turning takes one size only. Where the usual decoder would
    ignore the transparency, another is used.
    """
    decoders = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
    going_on = [] if video.rotation else [f"-reinit_filter:{video.index}", "0"]
    if video.has_alpha and video.codec in decoders:
        return [*going_on, f"-c:{video.index}", decoders[video.codec]]
    return going_on


def _is_rgb(video: Video) -> bool:
    return video.colours.matrix == "gbr" or video.pixel_format.startswith(
        ("rgb", "bgr", "gbr", "argb", "abgr", "0rgb", "0bgr", "pal8", "mono")
    )


def _over_black(video: Video) -> tuple[str, Meaning]:
    """Return the filters that take away a picture's transparency, and the meaning of their pictures."""
    meaning = meaning_of(video)
    if not video.has_alpha:
        return "", meaning
    # Before the size: else colours that were not to be seen would run into their neighbours.
    filters = (
        f"{_scaled(None, meaning)}:out_range=pc:{_EXACT},format=gbrap,premultiply=inplace=1,format=gbrp,"
    )
    return filters, Meaning("", is_full=True, primaries=meaning.primaries, transfer=meaning.transfer)


def _scaled(size: tuple[int, int] | None, meaning: Meaning) -> str:
    width, height = size or ("iw", "ih")
    matrix = f":in_color_matrix={meaning.matrix}" if meaning.matrix else ""
    return f"scale={width}:{height}{matrix}:in_range={'pc' if meaning.is_full else 'tv'}"


def _narrowed(size: tuple[int, int], meaning: Meaning) -> str:
    """Return the filters from wide primaries or HDR to BT.709; the last takes the matrix and the range."""
    matrix = meaning.matrix or _BT2020
    # ``zscale`` takes no odd sizes of subsampled pictures, and no packed RGB.
    plain = f"{_scaled(size, meaning)}:out_color_matrix={matrix}:out_range=tv,format=yuv444p10le"
    matrix_in = {_BT2020: "2020_ncl", _BT709: "709", _BT601: "170m"}.get(matrix, matrix)
    to_light = (
        f"zscale=min={matrix_in}:tin={meaning.transfer or '709'}:pin={meaning.primaries or '709'}:rin=limited"
        f":m=gbr:t=linear:p=709:r=full:npl={_WHITE_NITS},format=gbrpf32le"
    )
    peak = _PEAK_NITS / _WHITE_NITS
    mapped = f",tonemap=mobius:param={_UNTOUCHED}:peak={peak:.3f}:desat=0" if meaning.transfer else ""
    return f"{plain},{to_light}{mapped},zscale=min=gbr:tin=linear:pin=709:t=709:p=709"
