"""Which names lead to a file of the media root, and which to nothing."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from beeq.media import paths
from beeq.media.errors import MediaFailed, MediaRefused
from beeq.media.formats import demuxer_of
from beeq.media.paths import MediaRoot

#: Enough of an MP4 to be taken for one.
MP4 = b"\0\0\0\x20ftypisom" + bytes(100)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A media root with a file next to it that nobody may have."""
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "clip.mp4").write_bytes(MP4)
    (root / "folder" / "inner.mp4").write_bytes(MP4)
    (tmp_path / "secret.mp4").write_bytes(MP4)
    (root / "to-clip.mp4").symlink_to("clip.mp4")
    (root / "to-secret.mp4").symlink_to("../secret.mp4")
    (root / "to-absent.mp4").symlink_to("../absent.mp4")
    (root / "loop.mp4").symlink_to("loop.mp4")
    (root / "out-folder").symlink_to("..")
    (root / "in-folder").symlink_to("folder")
    os.mkfifo(root / "fifo.mp4")
    (root / "text.mp4").write_text("hello")
    (root / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    (root / "script.mp4").write_text("ffconcat version 1.0\nfile ../secret.mp4\n")
    (root / "manifest.mp4").write_text("<?xml version='1.0'?><MPD></MPD>")
    (root / "empty.mp4").touch()
    return root


@pytest.fixture(params=["through descriptors", "through paths"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux gives ffmpeg open files; systems without that get paths."""
    if request.param == "through paths":
        monkeypatch.setattr(paths, "_OPEN_FILES", Path("/nowhere"))


NOT_FOR_READING = [
    "",
    ".",
    "..",
    "/",
    "folder",
    "folder/",
    "clip.mp4/",
    "folder/..",
    "../secret.mp4",
    "folder/../../secret.mp4",
    "to-secret.mp4",
    "out-folder/secret.mp4",
    "/etc/passwd",
    "/dev/zero",
    "/proc/self/environ",
    "loop.mp4",
    "fifo.mp4",
    "text.mp4",
    "list.mp4",
    "script.mp4",
    "manifest.mp4",
    "empty.mp4",
    "clip.mp4\0.png",
    "clip\ud800.mp4",
    "a" * 300 + ".mp4",
    "a/" * 3000 + "clip.mp4",
]


@pytest.mark.parametrize("given", NOT_FOR_READING, ids=lambda name: ascii(name[:40]))
def test_a_forbidden_input_is_refused_by_its_own_name(root: Path, given: str) -> None:
    with pytest.raises(MediaRefused) as refused, MediaRoot(root).reading(given):
        pass
    message = str(refused.value)
    assert ascii(given[:100])[1:-1] in message
    assert str(root) not in message
    assert len(message) < 1000


@pytest.mark.parametrize(
    "given",
    [
        "file:clip.mp4",
        "concat:clip.mp4|clip.mp4",
        "http://127.0.0.1/clip.mp4",
        "data:,x",
        "-i",
        "clip%d.mp4",
        "*.mp4",
    ],
)
def test_a_protocol_pattern_or_option_is_only_a_missing_file(root: Path, given: str) -> None:
    with (
        pytest.raises(MediaFailed, match="No such file or directory"),
        MediaRoot(root).reading(given),
    ):
        pass


def test_a_socket_is_no_media_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s.mp4")
        with pytest.raises(MediaRefused, match="regular file"), MediaRoot(root).reading("s.mp4"):
            pass


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize(
    ("given", "leads_to"),
    [
        ("clip.mp4", "clip.mp4"),
        ("./folder//inner.mp4", "folder/inner.mp4"),
        ("folder/../clip.mp4", "clip.mp4"),
        ("to-clip.mp4", "clip.mp4"),
        ("in-folder/inner.mp4", "folder/inner.mp4"),
    ],
)
def test_a_name_inside_the_root_opens_its_file(root: Path, given: str, leads_to: str) -> None:
    for name in (given, f"{root}/{given}"):
        with MediaRoot(root).reading(name) as file:
            assert os.path.samestat(os.fstat(file.fd), (root / leads_to).stat())
            assert Path(file.url.removeprefix("file:")).samefile(root / leads_to)
            assert (file.given, file.demuxer, file.size()) == (name, "mov", len(MP4))


def test_a_root_behind_a_link_is_the_root(root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root)
    for given in ("clip.mp4", f"{tmp_path}/link/clip.mp4", f"{root}/clip.mp4"):
        with MediaRoot(tmp_path / "link").reading(given) as file:
            assert file.size() == len(MP4)


def test_a_folder_swapped_for_a_link_after_the_check_is_useless(root: Path, tmp_path: Path) -> None:
    media = MediaRoot(root)
    place = media.locate("folder/out.mp4")
    (root / "folder").rename(root / "was-folder")
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(MediaRefused, match=r"'folder/out\.mp4' cannot be opened"), media.creating(place):
        pass


NOT_FOR_WRITING = [
    "",
    "/",
    "folder/",
    "folder/.",
    "../out.mp4",
    "out-folder/out.mp4",
    "to-secret.mp4",
    "to-absent.mp4",
    "/tmp/out.mp4",
    "folder",
    "fifo.mp4",
    "clip.mp4/out.mp4",
    "out\0.mp4",
    "a" * 300 + ".mp4",
    "a/" * 3000 + "out.mp4",
]


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("given", NOT_FOR_WRITING, ids=lambda name: ascii(name[:40]))
def test_a_forbidden_output_is_refused_and_nothing_is_written(root: Path, tmp_path: Path, given: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    media = MediaRoot(root)
    with pytest.raises(MediaRefused) as refused, media.creating(media.locate(given)):
        pass
    assert str(root) not in str(refused.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("_both_ways")
@pytest.mark.parametrize("given", ["new.mp4", "a/b/c/new.mp4", "clip.mp4", "to-clip.mp4", "%d -x: *.mp4"])
def test_an_output_appears_when_it_is_published_and_not_before(root: Path, given: str) -> None:
    media = MediaRoot(root)
    before = (root / given).read_bytes() if (root / given).exists() else None
    with media.creating(media.locate(given)) as new:
        os.write(new.fd, b"new")
        assert ((root / given).read_bytes() if (root / given).exists() else None) == before
        new.publish()
        assert (root / given).read_bytes() == b"new"
    assert (root / given).read_bytes() == b"new"
    assert not list(root.rglob("*.part"))


@pytest.mark.usefixtures("_both_ways")
def test_an_output_that_is_not_published_leaves_what_was_there(root: Path) -> None:
    media = MediaRoot(root)
    with media.creating(media.locate("clip.mp4")) as new:
        os.write(new.fd, b"half")
    assert (root / "clip.mp4").read_bytes() == MP4
    assert not list(root.rglob("*.part"))


def test_an_output_has_the_permissions_of_any_new_file(root: Path) -> None:
    media = MediaRoot(root)
    with media.creating(media.locate("new.mp4")) as new:
        new.publish()
    (root / "plain").touch()
    assert (root / "new.mp4").stat().st_mode == (root / "plain").stat().st_mode


def test_no_descriptor_stays_open(root: Path) -> None:
    media = MediaRoot(root)
    before = set(Path("/dev/fd").iterdir())
    for given in [*NOT_FOR_READING, "clip.mp4", "to-clip.mp4"]:
        try:
            with media.reading(given):
                pass
        except MediaRefused:
            continue
    with media.creating(media.locate("a/new.mp4")) as new:
        new.publish()
    assert set(Path("/dev/fd").iterdir()) == before


@pytest.mark.parametrize(
    ("head", "demuxer"),
    [
        (MP4, "mov"),
        (b"\0\0\0\x08wide\0\0\0\0mdat", "mov"),
        (b"\x1aE\xdf\xa3", "matroska"),
        (b"RIFF\0\0\0\0AVI LIST", "avi"),
        (b"RIFF\0\0\0\0WAVEfmt ", "wav"),
        (b"FORM\0\0\0\0AIFFCOMM", "aiff"),
        (b"ID3\4\0\0\0\0\0\2\0\0\xff\xfb\x90\x00", "mp3"),
        (b"ID3\4\0\0\0\0\0\2\0\0fLaC", "flac"),
        (b"ID3\4\0\0\0\0\0\2\0\0#EXTM3U", None),
        (b"\xff\xfb\x90\x00", "mp3"),
        (b"\xff\xf1\x50\x80", "aac"),
        ((b"G" + bytes(187)) * 3, "mpegts"),
        ((bytes(4) + b"G" + bytes(187)) * 3, "mpegts"),
        (b"\0\0\0\1\x67\x64", "h264"),
        (b"\0\0\1\x40\1", "hevc"),
        (b"GIF89a", "gif"),
        (b"#EXTM3U\n", None),
        (b"\xef\xbb\xbf#EXTM3U\n", None),
        (b"ffconcat version 1.0", None),
        (b"<MPD>", None),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", None),
        (b"[playlist]", None),
        (b"\x89PNG\r\n\x1a\n", "png_pipe"),
        (b"<svg xmlns", None),
        (b"RIFF\0\0\0\0WEBP", "webp_pipe"),
        (b"\xff\xd8\xff\xe0", "jpeg_pipe"),
        (b"BM" + bytes(12) + b"\x28\0\0\0", "bmp_pipe"),
        (b"BM" + bytes(16), None),
        (b"G", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_a_file_is_read_as_what_its_first_bytes_say(head: bytes, demuxer: str | None) -> None:
    assert demuxer_of(lambda offset, length: head[offset : offset + length]) == demuxer


@pytest.mark.parametrize(
    "given",
    [
        ".git/x.mp4",
        ".beeq/appendonlydir/x.wav",
        "folder/.cache/deep/x.mp4",
        "folder/../.git/x.mp4",
        "to-hidden/x.mp4",
    ],
)
def test_a_hidden_folder_is_neither_read_nor_written(root: Path, given: str) -> None:
    for folder in (".git", ".beeq/appendonlydir", "folder/.cache/deep"):
        (root / folder).mkdir(parents=True)
        for name in ("x.mp4", "x.wav"):
            (root / folder / name).write_bytes(MP4)
    (root / "to-hidden").symlink_to(".git")
    media = MediaRoot(root)
    for name in (given, f"{root}/{given}"):
        with pytest.raises(MediaRefused, match="hidden folder"), media.reading(name):
            pass
        with pytest.raises(MediaRefused, match="hidden folder"):
            media.locate(name)


@pytest.mark.parametrize("folder", ["", "data"])
def test_a_servers_data_are_refused_in_any_folder(root: Path, folder: str) -> None:
    (root / folder / "appendonlydir").mkdir(parents=True)
    (root / folder / "keeper.lock").touch()
    (root / folder / "appendonlydir" / "x.mp4").write_bytes(MP4)
    given = f"{folder}/appendonlydir/x.mp4".removeprefix("/")
    media = MediaRoot(root)
    with pytest.raises(MediaRefused, match="embedded server"), media.reading(given):
        pass
    with pytest.raises(MediaRefused, match="embedded server"), media.creating(media.locate(given)):
        pass
    with media.creating(media.locate(f"{folder}/beside.mp4".removeprefix("/"))) as new:
        new.publish()


def test_a_root_in_a_hidden_folder_is_a_root(tmp_path: Path) -> None:
    (tmp_path / ".media").mkdir()
    (tmp_path / ".media" / "clip.mp4").write_bytes(MP4)
    with MediaRoot(tmp_path / ".media").reading("clip.mp4") as file:
        assert file.size() == len(MP4)


@pytest.mark.usefixtures("_both_ways")
def test_an_output_that_is_not_published_leaves_no_folder(root: Path) -> None:
    media = MediaRoot(root)
    before = sorted(root.rglob("*"))
    with media.creating(media.locate("folder/a/b/c/new.mp4")) as new:
        os.write(new.fd, b"half")
        assert not (root / "folder" / "a").exists()
    assert sorted(root.rglob("*")) == before


@pytest.mark.usefixtures("_both_ways")
def test_a_publication_that_fails_takes_its_folders_back(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = MediaRoot(root)
    before = sorted(root.rglob("*"))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", str(root))

    with media.creating(media.locate("a/b/c/new.mp4")) as new:
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", full)
            with pytest.raises(MediaFailed) as failed:
                new.publish()
        assert str(root) not in str(failed.value)
    assert sorted(root.rglob("*")) == before


@pytest.mark.usefixtures("_both_ways")
def test_a_folder_in_the_outputs_place_refuses_it_by_name(root: Path) -> None:
    media = MediaRoot(root)
    with media.creating(media.locate("a/new.mp4")) as new:
        (root / "a" / "new.mp4").mkdir(parents=True)
        with pytest.raises(MediaRefused, match=r"'a/new\.mp4' cannot be opened"):
            new.publish()
    assert [path.name for path in (root / "a").iterdir()] == ["new.mp4"]


@pytest.mark.usefixtures("_both_ways")
def test_a_folder_that_vanishes_while_publishing_is_made_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = MediaRoot(root)
    (root / "a").mkdir()
    real_replace, real_link = os.replace, os.link
    lost: list[Path] = []

    def lose(real, *args, **kwargs):
        if not lost:
            lost.append(root / "a")
            (root / "a" / "b").rmdir()
        return real(*args, **kwargs)

    with media.creating(media.locate("a/b/new.mp4")) as new:
        monkeypatch.setattr(os, "link", lambda *args, **kwargs: lose(real_link, *args, **kwargs))
        monkeypatch.setattr(os, "replace", lambda *args, **kwargs: lose(real_replace, *args, **kwargs))
        new.publish()
    assert (root / "a" / "b" / "new.mp4").is_file()
    assert lost


def test_an_output_may_be_32_folders_deep_and_not_more(root: Path) -> None:
    media = MediaRoot(root)
    before = sorted(root.rglob("*"))
    for depth in (33, 1900):
        place = media.locate("d/" * depth + "out.mp4")
        with pytest.raises(MediaRefused, match="more than 32 folders deep"), media.creating(place):
            pass
    assert sorted(root.rglob("*")) == before
    with media.creating(media.locate("d/" * 32 + "out.mp4")) as new:
        new.publish()
    assert (root / ("d/" * 32) / "out.mp4").is_file()


def test_a_link_that_vanishes_meanwhile_is_named_as_given(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def vanished(path: str, **_: object) -> str:
        raise FileNotFoundError(2, "No such file or directory", path)

    monkeypatch.setattr(os, "readlink", vanished)
    with pytest.raises(MediaFailed) as failed:
        MediaRoot(root).locate("to-clip.mp4")
    assert str(failed.value) == "'to-clip.mp4' cannot be opened: No such file or directory"


def test_a_project_reaches_the_files_of_its_own_folder_only(root: Path) -> None:
    (root / "p1" / "inner").mkdir(parents=True)
    (root / "p1" / "clip.mp4").write_bytes(MP4)
    (root / "p2").mkdir()
    (root / "p2" / "clip.mp4").write_bytes(MP4)
    (root / "p1" / "to-p2.mp4").symlink_to("../p2/clip.mp4")
    media = MediaRoot(root).in_project("p1")
    with media.reading("clip.mp4") as one, media.reading(f"{root}/p1/clip.mp4") as other:
        assert os.path.sameopenfile(one.fd, other.fd)
    for given in ("../p2/clip.mp4", f"{root}/p2/clip.mp4", "to-p2.mp4", "../clip.mp4", f"{root}/clip.mp4"):
        with pytest.raises(MediaRefused, match="project's folder"):
            media.locate(given)


def test_a_projects_folder_is_made_with_its_first_file(root: Path) -> None:
    media = MediaRoot(root).in_project("p1")
    with media.creating(media.locate("a/new.mp4")) as new:
        assert not (root / "p1").exists()
        new.publish()
    assert (root / "p1" / "a" / "new.mp4").is_file()


def test_a_projects_folder_that_leads_out_of_the_root_is_refused(root: Path) -> None:
    (root / "p1").symlink_to("..")
    with pytest.raises(MediaRefused, match="project's folder"):
        MediaRoot(root).in_project("p1").locate("secret.mp4")
