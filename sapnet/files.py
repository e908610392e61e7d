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
    """Write a file through a temporary file in the same folder, which is flushed to the disk and renamed.

    After a crash, a full disk or a concurrent write, `path` has its previous content, all of `data`, or all of the data
    of the other writer. Each call locks its own temporary file, `.NAME.RANDOM.partial`. The temporary file of a killed
    writer is not locked; the next call for the same `path` removes it.

    Args:
        path: The file; missing folders are created.
        data: Its content.
        durable: Whether to flush the file and its folder to the disk, which is slow for many small files. Without it
            a power failure may lose the file.

    Raises:
        OSError: The file cannot be written. No temporary file remains.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    with _create_partial(path) as file:
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


def _create_partial(path: Path) -> IO[bytes]:
    while True:
        file = open(path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial"), "xb")  # noqa: SIM115
        # On a file system without locks, temporary files are never removed.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        # Another writer may have removed the file before it was locked.
        if os.path.exists(file.name):
            return file
        file.close()


def _remove_leftovers(path: Path) -> None:
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        with suppress(OSError), open(leftover, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def _flush_folder(folder: Path) -> None:
    # Otherwise a power failure may undo the rename.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: str | Path, wait: bool = True) -> Iterator[IO]:
    """Lock a file; the operating system releases the lock when the process ends for any reason.

    A child process that inherits the open file (`pass_fds`) shares the lock until it ends. The package `filelock` does
    not support this: it gives no access to the open file, and releasing its lock also releases that of the child.

    Args:
        path: Lock file, created if it does not exist, and never removed.
        wait: Whether to wait if another process holds the lock.

    Raises:
        BlockingIOError: Another process holds the lock and `wait` is False.
        OSError: The lock file cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file
