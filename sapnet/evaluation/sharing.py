"""Work shared by processes: whoever locks an image does it, and the kernel drops the locks of a process that dies."""

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
_HELD_ELSEWHERE = {errno.EACCES, errno.EAGAIN}
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP}


class Claims:
    """Claims on words, held by one process at a time until it gives them back or dies.

    A word stands for one byte, far behind the end of an empty file, which a process locks. Nothing has to be tidied up
    after a process that was killed. The locks are those of a process: threads of one do not exclude each other. Where
    the file system has no locks every claim is granted, which is said once: work may be done twice there.

    Args:
        path: The file, made where it is not there; nothing else may open it.

    Raises:
        UserError: the file cannot be made.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise UserError(f"{self.path}: the file of claims cannot be made ({error.strerror or error}).") from error
        self._told = False

    def __enter__(self) -> "Claims":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    @contextmanager
    def claim(self, word: str) -> Iterator[bool]:
        """Hold the claim on a word in the block, if no other process has it; says whether it is held."""
        place = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8]) >> 2
        held = self._lock(place)
        try:
            yield held
        finally:
            with suppress(OSError):  # nothing to give back, where there are no locks
                if held:
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)

    def _lock(self, place: int) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno in _HELD_ELSEWHERE:
                return False
            if error.errno not in _NO_LOCKS:
                raise
            if not self._told:
                log.warning("%s: no locks on this file system; run one process alone.", self.path.parent)
                self._told = True
        return True


def lock_file(file: IO) -> None:
    """Wait until no other process has locked `file`, and lock it until it is closed, where the file system can."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
