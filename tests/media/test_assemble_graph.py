"""The pure parts of assembling a film: lengths, the graph, sharing of encoders, names."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beeq.media.assemble import Film, Scene, arguments, picture_chains, scene_of, sound_chain, written
from beeq.media.errors import MediaFailed
from beeq.media.formats import FILM_CONTAINERS
from beeq.media.inputs.facts import Audio, Facts, Timeline, Video
from beeq.media.outputs.colours import TAGGED, to_film
from beeq.media.outputs.film import Look, of_one_size
from beeq.media.paths import OpenFile, safe_name
from beeq.media.stream_copy import StreamCopy
from tests.media.clips import FFMPEG

SOURCE = OpenFile("a.mp4", -1, "file:a.mp4", "mov")
SOUND = Audio(3, "aac", 44100, 2, "stereo")
VIDEO = Video(0, "h264", 65, 49, fps=25)


@pytest.mark.parametrize(
    ("times", "duration_s", "pictures", "is_exact"),
    [
        (Timeline(25, 0.0, 0.96, 1.0, is_timed=True), 9, 25, True),
        (Timeline(2, 0.0, 0.04, 3.0, is_timed=True), None, 75, True),
        # The file says nothing of the last picture's duration: it is shown once.
        (Timeline(25, 0.0, 0.96, 0.96, is_timed=True), None, 25, True),
        (Timeline(1, 0.0, 0.0, 0.0, is_timed=True), None, 1, True),
        (Timeline(1, 0.0, 0.0, 0.001, is_timed=True), None, 1, True),
        (Timeline(25, 1.0, 1.96, 2.0, is_timed=True), None, 50, True),
        (Timeline(25, -0.08, 0.88, 0.92, is_timed=False), 9, 25, False),
        (None, 2.0, 50, False),
    ],
)
def test_a_scene_lasts_until_its_last_picture_is_over(
    times: Timeline | None, duration_s: float | None, pictures: int, is_exact: bool
) -> None:
    scene = scene_of(SOURCE, replace(VIDEO, timeline=times), Facts(duration_s, ()), (Fraction(25), 5))
    assert scene == Scene(VIDEO, pictures, is_exact)


@pytest.mark.parametrize("times", [None, Timeline(1, 0.0, 0.0, 0.0, is_timed=False)])
def test_a_scene_of_unknown_length_fails_by_its_name(times: Timeline | None) -> None:
    with pytest.raises(MediaFailed, match=r"'a\.mp4' does not say how long it is"):
        scene_of(SOURCE, replace(VIDEO, timeline=times), Facts(None, ()), (Fraction(25), 5))


LOOK = Look((64, 48), Fraction(30000, 1001))
FILM = Film((Scene(VIDEO, 30), Scene(Video(1, "vp9", 64, 48), 15, is_exact=False)), LOOK, SOUND)
TO_FILM = to_film(VIDEO, (64, 48))
INPUTS = [OpenFile(f"{name}.mp4", -1, f"file:{name}.mp4", "mov") for name in ("master", "a", "b")]
SCRIPT = OpenFile("a list", -1, "file:list", "concat")
OUTPUTS = [(container, f"file:o.{name}") for name, container in FILM_CONTAINERS.items()]


def test_the_graph_counts_pictures_and_cuts_sound_to_their_sum() -> None:
    assert picture_chains(FILM, 2).split(";") == [
        (
            f"[1:0]{of_one_size(VIDEO)}{TO_FILM},pad=64:48:0:0,setsar=1,fps=30000/1001:start_time=0,"
            "tpad=stop=-1:stop_mode=clone,trim=end_frame=30[s1]"
        ),
        f"[2:1]{of_one_size(Video(1, 'vp9', 64, 48))}{TO_FILM},pad=64:48:0:0,setsar=1,fps=30000/1001:start_time=0[s2]",
        f"[s1][s2]concat=n=2:v=1:a=0,settb=1001/30000,{TAGGED},split=2[v0][v1]",
    ]
    assert sound_chain(FILM, 2) == (
        "[0:3]aresample=48000:async=1:first_pts=0:rematrix_maxval=1,"
        "aformat=sample_fmts=fltp:channel_layouts=stereo,apad=whole_dur=1.501500,atrim=end=1.501500,asplit=2[a0][a1]"
    )


def test_as_many_scenes_as_a_job_may_have_fit_on_a_command_line() -> None:
    scene = Scene(Video(100, "h264", 10_000, 10_000, fps=29.97), 1_000_000)
    film = Film((scene,) * 250, Look((10_000, 10_000), Fraction(30000, 1001)), SOUND)
    assert len(max(arguments(FFMPEG, film, [SOURCE] * 251, OUTPUTS), key=len)) < 128 * 1024


def maps(reported: list[str]) -> list[tuple[str, str]]:
    """Return each stream that is written, and by what."""
    places = [place for place, word in enumerate(reported) if word == "-map"]
    return [(reported[place + 1], reported[place + 3]) for place in places]


def test_what_holds_the_same_is_encoded_once() -> None:
    reported = arguments(FFMPEG, FILM, INPUTS, OUTPUTS)
    assert [reported[place + 1] for place, word in enumerate(reported) if word == "-i"] == [
        "file:master.mp4",
        "file:a.mp4",
        "file:b.mp4",
    ]
    assert maps(reported) == [
        ("[v0]", "libx264"),
        ("[a0]", "aac"),
        ("[v1]", "libvpx-vp9"),
        ("[a1]", "libopus"),
    ]
    assert "[f=mp4:movflags=+faststart]file:o.mp4|[f=mov:movflags=+faststart]file:o.mov" in reported
    assert reported[-3:] == ["-f", "webm", "file:o.webm"]


@pytest.mark.parametrize(
    ("formats", "read", "written"),
    [
        (["mp4", "mov"], ["master.mp4", "list"], [("1:0", "copy"), ("[a0]", "aac")]),
        (["mp4"], ["master.mp4", "list"], [("1:0", "copy"), ("[a0]", "aac")]),
        (
            ["webm", "mov"],
            ["master.mp4", "a.mp4", "b.mp4", "list"],
            [("[v0]", "libvpx-vp9"), ("[a0]", "libopus"), ("3:0", "copy"), ("[a1]", "aac")],
        ),
        (["webm"], ["master.mp4", "a.mp4", "b.mp4", "list"], [("[v0]", "libvpx-vp9"), ("[a0]", "libopus")]),
    ],
)
def test_copyable_pictures_are_decoded_only_where_needed(
    formats: list[str], read: list[str], written: list[tuple[str, str]]
) -> None:
    copy = StreamCopy(0, Fraction(1001, 30000), (30, 15))
    outputs = [(FILM_CONTAINERS[name], f"file:o.{name}") for name in formats]
    reported = arguments(FFMPEG, FILM, INPUTS, outputs, (copy, SCRIPT))
    assert [reported[place + 1] for place, word in enumerate(reported) if word == "-i"] == [
        f"file:{name}" for name in read
    ]
    assert maps(reported) == written


def test_names_in_a_list_of_outputs_are_taken_literally() -> None:
    group = [(FILM_CONTAINERS["mp4"], "file:/a|b [c]'d\\e"), (FILM_CONTAINERS["mov"], "file:x")]
    listed = written(FFMPEG, group)[-1]
    assert listed.startswith("[f=mp4:movflags=+faststart]file:/a\\|b \\[c\\]\\'d\\\\e|[f=mov")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("6f1c1c9e-8f6e-4a53", "6f1c1c9e-8f6e-4a53"),
        ("17", "17"),
        ("Film_1.final", "Film_1.final"),
        ("", "%"),
        ("-i", "%2Di"),
        (".hidden", "%2Ehidden"),
        ("..", "%2E."),
        ("../x", "%2E.%2Fx"),
        ("/etc/passwd", "%2Fetc%2Fpasswd"),
        ("a/b", "a%2Fb"),
        ("a\\b", "a%5Cb"),
        ("a%2Fb", "a%252Fb"),
        ("a\0b\n", "a%00b%0A"),
        ("~", "%7E"),
        ("ü", "%C3%BC"),
        ("\ud800", "%ED%A0%80"),
        ("a" * 180, "a" * 180),
    ],
)
def test_a_text_becomes_the_name_of_one_file(text: str, name: str) -> None:
    assert safe_name(text) == name


@given(st.text(alphabet=st.characters(), max_size=400))
def test_a_name_is_safe_whatever_the_text(text: str) -> None:
    name = safe_name(text)
    assert PurePath(name).name == name
    assert len(name.encode("ascii")) <= 180
    assert name[0] not in "-.~"


@given(st.lists(st.text(alphabet="a%~é/", max_size=80), min_size=2, unique=True))
def test_no_two_texts_have_the_same_name(texts: list[str]) -> None:
    assert len({safe_name(text) for text in texts}) == len(texts)


def test_long_texts_that_begin_alike_have_different_names() -> None:
    texts = ["a" * length for length in range(150, 400)] + ["é" * 200, "é" * 201, safe_name("a" * 300)]
    assert len({safe_name(text) for text in texts}) == len(texts)
