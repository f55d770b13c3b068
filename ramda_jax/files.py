"""Files that are whole or absent: written beside their place and moved into it, with a lock on the folder."""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None

#: The beginning of the names of files that are being written. A killed process may leave such files behind; they may be
#: deleted.
UNFINISHED = ".unfinished-"


def write_beside(folder: Path, data: bytes) -> Path:
    """Writes `data` to a new file in `folder`, through to the disk, and returns its path; an error leaves no file."""
    # mkstemp only opens new files, so nothing is written through a link.
    handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # Only the owner may read mkstemp's files; give them the usual permissions.
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
    except BaseException:
        remove(Path(name))
        raise
    return Path(name)


def move_into_place(source: Path, target: Path) -> None:
    """Replaces `target` (a link itself, not what it points to) by `source` at once."""
    os.replace(source, target)
    sync_folder(target.parent)


def write_whole(path: Path, data: bytes | str) -> None:
    """Writes a file so that every reader finds either all of the old content or all of the new.

    Raises:
        OSError: the file could not be written; the old file is unchanged.
    """
    source = write_beside(path.parent, data.encode() if isinstance(data, str) else data)
    try:
        move_into_place(source, path)
    except BaseException:
        remove(source)
        raise


def sync_folder(folder: Path) -> None:
    """Writes the names in a folder to the disk, if the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: Path) -> None:
    """Removes a file, if it exists and can be removed."""
    with contextlib.suppress(OSError):
        path.unlink()


class TooLarge(OSError):
    """A file is larger than it may be."""


def read_regular(path: Path, largest: int) -> bytes:
    """The content of a regular file of at most `largest` bytes.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is not a regular file (opening a pipe would wait for ever), is larger, or cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a regular file")
        if status.st_size > largest:
            raise TooLarge(f"it has {status.st_size} bytes, not the {largest} that it may have")
        # Do not use `read(largest)`, because Python would allocate that much.
        return file.read(status.st_size)


def sha256(data: bytes) -> str:
    """The digest of `data` in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


class Locked(Exception):
    """Another process has the lock."""


@contextlib.contextmanager
def locked(path: Path, wait: bool) -> Iterator[bool]:
    """Holds the lock of an existing file or folder. The system frees it when the process ends in any way.

    Yields:
        Whether there is a lock: False on systems and file systems without locks.

    Raises:
        Locked: another process has the lock, and `wait` is False.
    """
    if fcntl is None:
        yield False
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        has_lock = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise Locked from None
        except OSError:
            has_lock = False
        yield has_lock
    finally:
        os.close(handle)
