"""Opens the files of a media root, by names that strangers chose.

A name is relative to the root, or absolute and inside the root once links are resolved. The path is then
walked from the root folder by folder, without following links, and ffmpeg is given the open file, not its
name. So no name can act as a protocol, a pattern or an option, and a link that is swapped in after the
check is not followed.
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

from beeq.media.errors import MediaFailed, MediaRefused, shown
from beeq.media.formats import demuxer_of

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
_NAMES_A_FOLDER = ("", ".", "..")
#: Characters without a meaning to a shell, a pattern, a URL or ffmpeg, at any position.
_PLAIN = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
#: Those without a meaning after a plain one.
_INNER = _PLAIN | frozenset(b"-.")
#: A file name has at most 255 bytes; the suffix, and other programs' temporary names, need some of them.
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

    def size(self) -> int:
        """Return the length in bytes."""
        return os.fstat(self.fd).st_size


class NewFile:
    """A file being written. It has no name, or a random one, until ``publish``."""

    def __init__(self, place: Place, folder_fd: int, folder: Path) -> None:
        self.given = place.given
        self._place = place
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
        """Give the file its name, replacing an existing file."""
        if not self._is_named:
            source = str(_OPEN_FILES / str(self.fd))
            os.link(source, self._temporary, dst_dir_fd=self._folder_fd, follow_symlinks=True)
            self._is_named = True
        os.replace(self._temporary, self._place.name, src_dir_fd=self._folder_fd, dst_dir_fd=self._folder_fd)
        self._is_named = False

    def close(self) -> None:
        """Close the file, and delete it if it was not published."""
        os.close(self.fd)
        if self._is_named:
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
    """The folder outside of which no file is touched."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def locate(self, given: str) -> Place:
        """Resolve a name, and open nothing; raises MediaRefused if it leads out, or is not a file's name."""
        if "\0" in given or given.rpartition("/")[2] in _NAMES_A_FOLDER:
            raise MediaRefused(f"{shown(given)} is not the name of a file")
        try:
            if len(os.fsencode(given)) >= _PATH_MAX:
                raise MediaRefused(f"{shown(given)} is too long for a name")
            root = os.path.realpath(self._root)
            resolved = PurePath(os.path.realpath(Path(root, given)))
            *folders, name = resolved.relative_to(root).parts
        except UnicodeEncodeError:
            raise MediaRefused(f"{shown(given)} is not the name of a file") from None
        except ValueError:
            # "from None": the cause names the root.
            raise MediaRefused(f"{shown(given)} is not inside the media root") from None
        return Place(given, tuple(folders), name)

    @contextlib.contextmanager
    def reading(self, given: str) -> Iterator[OpenFile]:
        """Open a media file to read.

        Raises MediaRefused if it is not inside the root, not a regular file, or not a media file, and
        MediaFailed if it does not exist, or cannot be opened.
        """
        place = self.locate(given)
        with _explained(given), self._folder(place, make=False) as folder_fd:
            # Checked before it is opened, because on some devices opening alone has an effect.
            _check_regular(os.stat(place.name, dir_fd=folder_fd, follow_symlinks=False), given)
            fd = os.open(place.name, _READ, dir_fd=folder_fd)
        try:
            with _explained(given):
                _check_regular(os.fstat(fd), given)
                demuxer = demuxer_of(lambda offset, length: os.pread(fd, length, offset))
            if demuxer is None:
                raise MediaRefused(f"{shown(given)} is not a media file that can be read")
            yield OpenFile(given, fd, _url(fd, self._path(place)), demuxer)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def creating(self, place: Place) -> Iterator[NewFile]:
        """Create a new file for a place, and the folders above it.

        Raises MediaRefused if something is there that is not a regular file.
        """
        with contextlib.ExitStack() as stack:
            with _explained(place.given):
                folder_fd = stack.enter_context(self._folder(place, make=True))
                with contextlib.suppress(FileNotFoundError):
                    existing = os.stat(place.name, dir_fd=folder_fd, follow_symlinks=False)
                    _check_regular(existing, place.given)
                new = NewFile(place, folder_fd, self._path(place).parent)
                stack.callback(new.close)
            yield new

    def _path(self, place: Place) -> Path:
        return Path(os.path.realpath(self._root), *place.folders, place.name)

    @contextlib.contextmanager
    def _folder(self, place: Place, *, make: bool) -> Iterator[int]:
        fd = os.open(os.path.realpath(self._root), _FOLDER)
        try:
            for name in place.folders:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(name, dir_fd=fd)
                inner = os.open(name, _FOLDER, dir_fd=fd)
                os.close(fd)
                fd = inner
            yield fd
        finally:
            os.close(fd)


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
