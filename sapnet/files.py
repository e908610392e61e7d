"""Writing a file so that it is there whole or not at all, and work that one process at a time may do."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def write_atomically(path: str | Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`: beside it first, flushed to the disk, then renamed over it.

    Whatever happens meanwhile (a crash, a full disk), `path` holds what it held before or all of `data`.

    Raises:
        OSError: it cannot be written; nothing is left beside `path`.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
    # Without it a power cut may undo the rename.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: str | Path) -> Iterator[IO]:
    """Hold the lock file `path`, waiting for whoever holds it; the system lets go of it however the process ends.

    A child process that is handed the open file (`pass_fds`) holds the lock too, until it ends.

    Raises:
        OSError: the lock file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
