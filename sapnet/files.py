"""Atomic file writes and file locks."""

import fcntl
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def write_atomically(path: str | Path, data: bytes | memoryview, durable: bool = True) -> None:
    """Write `data` to `path`: beside it first, flushed to the disk, then renamed over it.

    Whatever happens meanwhile (a crash, a full disk, another writer), `path` holds what it held before, all of `data`,
    or all of what the other wrote. Each call has a partial file of its own, `.NAME.RANDOM.partial`, which it locks.
    What a killed writer left is not locked, and the next call for the same `path` removes it.

    Args:
        path: The file; missing folders are created.
        data: Its content.
        durable: Whether to flush the file and its folder to the disk, which is slow for many small files. Without it
            a power failure may lose the file.

    Raises:
        OSError: The file cannot be written; no partial file remains.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    with _own_partial(path) as file:
        partial = Path(file.name)
        try:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    if durable:
        _flush_folder(path.parent)


def _own_partial(path: Path) -> IO[bytes]:
    while True:
        file = open(path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial"), "xb")  # noqa: SIM115
        # Without locks on the file system nothing is ever taken for a leftover there.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        # Before it was locked, another writer may have removed it as a leftover.
        if os.path.exists(file.name):
            return file
        file.close()


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(OSError), open(leftover, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def _flush_folder(folder: Path) -> None:
    # Without it a power cut may undo the rename.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: str | Path, wait: bool = True) -> Iterator[IO]:
    """Hold the lock file `path`; the system lets go of it however the process ends.

    A child process that is handed the open file (`pass_fds`) holds the lock too, until it ends. For that reason this is
    not `filelock`: it gives no access to its open file, and its release lets go of the lock for the child as well.

    Args:
        path: The lock file, made where it is not there, and never removed.
        wait: Whether to wait for another holder.

    Raises:
        BlockingIOError: another process holds it, and `wait` is off.
        OSError: the lock file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file
