"""File locks on names, to divide work among processes."""

import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sapnet.errors import UserError

log = logging.getLogger(__name__)
_LOCKED = {errno.EACCES, errno.EAGAIN}
_UNSUPPORTED = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


class Claims:
    """Exclusive claims on names, each held by one process until it releases the claim or ends.

    A claim is a lock on one byte of an empty file; the offset of the byte is a hash of the name. The kernel releases
    the locks of a process that ends, so no cleanup is needed. Locks belong to the process: its threads do not exclude
    each other. On a file system without locks every claim is granted, with one warning, and work may be done twice.

    Args:
        path: The lock file, created if it does not exist. Nothing else may open it.

    Raises:
        UserError: The file cannot be created.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(f"{self.path}: the lock file cannot be created ({error.strerror or error}).") from error
        self._warned = False

    def __enter__(self) -> "Claims":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Claim a name within the block and yield whether the claim is held: no other process holds it."""
        offset = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 2
        held = self._lock(offset)
        try:
            yield held
        finally:
            with suppress(OSError):  # without locks there is nothing to release
                if held:
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, offset)

    def _lock(self, offset: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, offset)
        except OSError as error:
            if error.errno in _LOCKED:
                return False
            if error.errno not in _UNSUPPORTED:
                raise
            if not self._warned:
                log.warning("%s: this file system has no locks; run only one process.", self.path.parent)
                self._warned = True
        return True


def lock_file(file: IO) -> None:
    """Lock a file until it is closed, waiting for other processes; no-op on file systems without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
