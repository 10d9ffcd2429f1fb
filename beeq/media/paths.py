"""Opens the files of a media root, by untrusted names.

A name is relative to the root, or absolute and inside the root once links are resolved. The path is then
walked from the root folder by folder, without following links, and ffmpeg is given the open file, not its
name. So no name can act as a protocol, a pattern or an option, and a link that is swapped in after the
check is not followed.

Hidden folders (``.git``, the embedded server's ``.beeq``) are not for media, and neither are an embedded
server's data, whatever its folder is called. Folders for an output are made when it is published, not before,
so a job that fails leaves none.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Self

from beeq.embedded import keeper
from beeq.media.errors import MediaFailed, MediaRefused, shown
from beeq.media.formats import content_of

#: Where Linux lets a process open its open files again, each with its own position. (``/dev/fd`` of other
#: systems shares one position, which muxers cannot use.)
_OPEN_FILES = Path("/proc/self/fd")
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Opening never blocks, as at a pipe, and never gives the worker a controlling terminal.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_UNNAMED_FILES = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)
#: The system's bound on a path, which walking folder by folder would bypass.
_PATH_MAX = 4096
#: … and on one part of it, which is found out only where its folder is there.
_NAME_MAX = 255
_NAMES_A_FOLDER = ("", ".", "..")
#: The most folders between the root and an output.
MAX_DEPTH = 32
#: A folder that another job makes, or takes back, at the same moment is looked for so often.
_PUBLISH_TRIES = 3
#: Characters without a meaning to a shell, a pattern, a URL or ffmpeg, at any position.
_PLAIN = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
#: Those without a meaning after a plain one.
_INNER = _PLAIN | frozenset(b"-.")
#: Less than a name may have: the suffix, and other programs' temporary names, need some of it.
_SAFE_LENGTH = 180


@dataclass(frozen=True, slots=True)
class Place:
    """An allowed name, resolved: the folders below the root, and the file's name."""

    given: str
    folders: tuple[str, ...]
    name: str


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file for ffmpeg to read: ``url`` names it while ``fd`` is passed on."""

    given: str
    fd: int
    url: str
    demuxer: str
    #: Where the content begins, in bytes: players skip anything before a sound without a header.
    begin: int = 0

    def size(self) -> int:
        """Return the length in bytes."""
        return os.fstat(self.fd).st_size


class NewFile:
    """A file being written. It has no name, or a random one, until ``publish``.

    Until then it is in the folder ``folder_fd``: its own, or the nearest above that is there already.
    """

    def __init__(self, place: Place, root_fd: int, folder_fd: int, folder: Path) -> None:
        self.given = place.given
        self._place = place
        self._root_fd = root_fd
        self._folder_fd = folder_fd
        self._temporary = f".beeq-{secrets.token_hex(8)}.part"
        self.fd, self._is_named = self._create()
        self.url = _url(self.fd, folder / self._temporary)

    def _create(self) -> tuple[int, bool]:
        unnamed = getattr(os, "O_TMPFILE", 0)
        if unnamed and takes_open_files():
            try:
                # An unnamed file vanishes with this process, even if that is killed.
                fd = os.open(".", unnamed | os.O_RDWR | os.O_CLOEXEC, 0o666, dir_fd=self._folder_fd)
            except OSError as error:
                if error.errno not in _NO_UNNAMED_FILES:
                    raise
            else:
                return fd, False
        return os.open(self._temporary, _CREATE, 0o666, dir_fd=self._folder_fd), True

    def reading(self, demuxer: str) -> OpenFile:
        """Return the file as an input for ``demuxer``."""
        return OpenFile(self.given, self.fd, self.url, demuxer)

    def publish(self) -> None:
        """Give the file its name, replacing an existing file, and make the folders that are missing.

        Raises MediaRefused or MediaFailed, and then leaves no folder that it has made.
        """
        with _explained(self.given):
            for left in reversed(range(_PUBLISH_TRIES)):
                try:
                    self._publish()
                    break
                except FileNotFoundError:  # a job that failed took back a folder that this one needs
                    if not left:
                        raise

    def _publish(self) -> None:
        with _made(self._root_fd, self._place.folders) as folder_fd:
            if self._is_named:
                self._rename(self._folder_fd, folder_fd)
            else:
                source = str(_OPEN_FILES / str(self.fd))
                os.link(source, self._temporary, dst_dir_fd=folder_fd, follow_symlinks=True)
                try:
                    self._rename(folder_fd, folder_fd)
                except OSError:
                    os.unlink(self._temporary, dir_fd=folder_fd)
                    raise
        self._is_named = False

    def _rename(self, source_fd: int, target_fd: int) -> None:
        os.replace(self._temporary, self._place.name, src_dir_fd=source_fd, dst_dir_fd=target_fd)

    def close(self) -> None:
        """Close the file, and delete it if it was not published."""
        os.close(self.fd)
        if self._is_named:
            with _explained(self.given), contextlib.suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._folder_fd)


def safe_name(text: str) -> str:
    """Return a file name for any text: a plain text is its own name, and no two texts share one.

    Everything but ASCII letters, digits, ``_`` and inner ``-`` and ``.`` is percent-encoded. Of a name
    that is too long the beginning is kept; a ``~``, which no other name has, and a hash are added.
    """
    content = text.encode(errors="surrogatepass")
    safe = "".join(
        chr(byte) if byte in (_INNER if place else _PLAIN) else f"%{byte:02X}"
        for place, byte in enumerate(content)
    )
    if len(safe) <= _SAFE_LENGTH:
        return safe or "%"
    digest = hashlib.sha256(content).hexdigest()
    return f"{safe[: _SAFE_LENGTH - len(digest) - 1]}~{digest}"


class MediaRoot:
    """The folder outside of which no file is touched.

    A ``project`` is the name of a folder below it: names are relative to that, and must not lead out of it.
    """

    def __init__(self, root: Path, project: str = "") -> None:
        self._root = root
        self._project = project

    def in_project(self, folder: str) -> Self:
        """Return the folder of one project; ``""`` is the root itself, which projects then share."""
        return type(self)(self._root, folder)

    def locate(self, given: str) -> Place:
        """Resolve a name, and open nothing.

        Raises MediaRefused if it leads out, into a hidden folder, or is not a file's name; MediaFailed if a
        link on the way changes meanwhile.
        """
        if "\0" in given or given.rpartition("/")[2] in _NAMES_A_FOLDER:
            raise MediaRefused(f"{shown(given)} is not the name of a file")
        try:
            if len(os.fsencode(given)) >= _PATH_MAX:
                raise MediaRefused(f"{shown(given)} is too long for a name")
            # Explained, for the system's error about a link that vanishes between two looks names the root.
            with _explained(given):
                root = os.path.realpath(self._root)
                base = PurePath(os.path.realpath(Path(root, self._project)))
                resolved = PurePath(os.path.realpath(Path(base, given)))
            *inner, name = resolved.relative_to(base).parts
            folders = (*base.relative_to(root).parts, *inner)
        except UnicodeEncodeError:
            raise MediaRefused(f"{shown(given)} is not the name of a file") from None
        except ValueError:
            # "from None": the cause names the root.
            whose = "its project's folder in the media root" if self._project else "the media root"
            raise MediaRefused(f"{shown(given)} is not inside {whose}") from None
        if any(folder.startswith(".") for folder in folders):
            raise MediaRefused(f"{shown(given)} is in a hidden folder, and these are not for media")
        if any(len(os.fsencode(part)) > _NAME_MAX for part in (*folders, name)):
            raise MediaRefused(f"{shown(given)} is too long for a name")
        return Place(given, folders, name)

    @contextlib.contextmanager
    def reading(self, given: str) -> Iterator[OpenFile]:
        """Open a media file to read.

        Raises MediaRefused if it is not inside the root, not a regular file, or not a media file, and
        MediaFailed if it does not exist, or cannot be opened.
        """
        place = self.locate(given)
        with self._opened(place) as fd:
            with _explained(given):
                content = content_of(lambda offset, length: os.pread(fd, length, offset))
                url = _url(fd, Path(os.path.realpath(self._root), *place.folders, place.name))
            if content is None:
                raise MediaRefused(f"{shown(given)} is not a media file that can be read")
            yield OpenFile(given, fd, url, *content)

    @contextlib.contextmanager
    def opened(self, given: str) -> Iterator[int]:
        """Open a file of any kind to read; yields its descriptor. Raises as ``reading`` does."""
        with self._opened(self.locate(given)) as fd:
            yield fd

    @contextlib.contextmanager
    def _opened(self, place: Place) -> Iterator[int]:
        with contextlib.ExitStack() as stack:
            with _explained(place.given):
                folder_fd, missing = _walked(stack, self._open_root(stack), place)
                if missing:
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
                # Checked before it is opened, because on some devices opening alone has an effect.
                _check_regular(os.stat(place.name, dir_fd=folder_fd, follow_symlinks=False), place.given)
                fd = os.open(place.name, _READ, dir_fd=folder_fd)
                stack.callback(os.close, fd)
                _check_regular(os.fstat(fd), place.given)
            yield fd

    @contextlib.contextmanager
    def creating(self, place: Place) -> Iterator[NewFile]:
        """Create a new file for a place; the folders above it are made by ``NewFile.publish``.

        Raises MediaRefused if something is there that is not a regular file, or the place is too deep.
        """
        if len(place.folders) > MAX_DEPTH:
            raise MediaRefused(f"{shown(place.given)} is more than {MAX_DEPTH} folders deep")
        with contextlib.ExitStack() as stack:
            with _explained(place.given):
                root_fd = self._open_root(stack)
                folder_fd, missing = _walked(stack, root_fd, place)
                if not missing:
                    with contextlib.suppress(FileNotFoundError):
                        existing = os.stat(place.name, dir_fd=folder_fd, follow_symlinks=False)
                        _check_regular(existing, place.given)
                there = place.folders[: len(place.folders) - missing]
                folder = Path(os.path.realpath(self._root), *there)
                new = NewFile(place, root_fd, folder_fd, folder)
                stack.callback(new.close)
            yield new

    def _open_root(self, stack: contextlib.ExitStack) -> int:
        fd = os.open(os.path.realpath(self._root), _FOLDER)
        stack.callback(os.close, fd)
        return fd


def _walked(stack: contextlib.ExitStack, root_fd: int, place: Place) -> tuple[int, int]:
    """Return the nearest folder of the place that is there, open, and how many are missing below it."""
    fd = root_fd
    for depth, name in enumerate(place.folders):
        if name == keeper.DATA and _holds_server(fd):
            raise MediaRefused(f"{shown(place.given)} is in the data of an embedded server")
        try:
            fd = os.open(name, _FOLDER, dir_fd=fd)
        except FileNotFoundError:
            return fd, len(place.folders) - depth
        stack.callback(os.close, fd)
    return fd, 0


def _holds_server(folder_fd: int) -> bool:
    """Return whether an embedded server keeps its data in the folder."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(keeper.KEEPER_LOCK, dir_fd=folder_fd, follow_symlinks=False)
        return True
    return False


@contextlib.contextmanager
def _made(root_fd: int, folders: tuple[str, ...]) -> Iterator[int]:
    """Make the folders that are missing; yields the innermost. Takes them back if the block raises."""
    made: list[tuple[int, str]] = []
    fd = root_fd
    with contextlib.ExitStack() as opened:
        try:
            for name in folders:
                try:
                    inner = os.open(name, _FOLDER, dir_fd=fd)
                except FileNotFoundError:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, dir_fd=fd)
                        made.append((fd, name))
                    inner = os.open(name, _FOLDER, dir_fd=fd)
                opened.callback(os.close, inner)
                fd = inner
            yield fd
        except BaseException:
            for parent_fd, name in reversed(made):
                with contextlib.suppress(OSError):  # another job's file is in it by now
                    os.rmdir(name, dir_fd=parent_fd)
            raise


def takes_open_files() -> bool:
    """Return whether this system lets ffmpeg open open files; on others it gets their names."""
    return _OPEN_FILES.is_dir()


@contextlib.contextmanager
def text_file(text: str, demuxer: str) -> Iterator[OpenFile]:
    """Make an input of a text that beeq wrote, in memory; only where ``takes_open_files``."""
    with os.fdopen(os.memfd_create("beeq"), "wb") as file:
        file.write(text.encode())
        file.flush()
        yield OpenFile("a list", file.fileno(), f"file:{_OPEN_FILES / str(file.fileno())}", demuxer)


def _url(fd: int, path: Path) -> str:
    """Return the file's URL for ffmpeg, with the one protocol that it may use."""
    return f"file:{_OPEN_FILES / str(fd)}" if takes_open_files() else f"file:{path}"


def _check_regular(found: os.stat_result, given: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise MediaRefused(f"{shown(given)} is not a regular file")


@contextlib.contextmanager
def _explained(given: str) -> Iterator[None]:
    """Turn the system's errors into media errors, which name the file as the job did."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR):
            raise MediaRefused(f"{shown(given)} cannot be opened: {error.strerror}") from None
        raise MediaFailed(f"{shown(given)} cannot be opened: {error.strerror}") from None
