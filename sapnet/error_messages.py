"""What a user reads of an error that is theirs to mend: one sentence, without a stack trace."""

import errno
from collections.abc import Iterator

from hydra.errors import CompactHydraException, InstantiationException
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
)

from sapnet.errors import UserError

#: With 1 in this environment variable the stack trace is shown instead. It is Hydra's.
FULL_ERROR = "HYDRA_FULL_ERROR"
#: Errors of the operating system that are about a place to write to, or its room.
_UNWRITABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
    | {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
)


def user_error_message(error: BaseException) -> str | None:
    """Return the sentence for the user where their input caused `error`; None where the program is at fault."""
    for cause in causes(error):
        if isinstance(cause, UserError):
            return _message_of(cause)
        if isinstance(cause, MissingMandatoryValue):
            return f"{cause.full_key} is not given: add {cause.full_key}=VALUE (--help lists the keys)."
        if isinstance(cause, InterpolationToMissingValueError):
            key = _first_line(cause).rpartition(": ")[2]
            return f"{key} is not given: add {key}=VALUE (--help lists the keys)."
        if isinstance(cause, InterpolationKeyError | InterpolationResolutionError):
            return f"{cause.full_key} in the config cannot be resolved: {_first_line(cause)}."
        if isinstance(cause, OSError) and cause.errno in _UNWRITABLE:
            return _unwritable_message(cause)
    if isinstance(error, InstantiationException):
        return f"{_one_line(str(error))} ({FULL_ERROR}=1 shows the stack trace.)"
    if isinstance(error, CompactHydraException):
        return _one_line(str(error))
    return None


def missing_folder_message(error: BaseException) -> str | None:
    """Return the sentence for a folder that cannot be made; only for errors from outside a command's own code.

    In that code a missing file may be a fault of the program.
    """
    return next((_unwritable_message(cause) for cause in causes(error) if isinstance(cause, FileNotFoundError)), None)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, then what caused it, and so on."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _unwritable_message(error: OSError) -> str:
    place = f"{error.filename}: it" if error.filename else "A file"
    return f"{place} cannot be written ({error.strerror or error}): make room there, or choose another folder."


def _message_of(error: UserError) -> str:
    # A data loader's worker process hands on the type, and the whole trace as its message.
    text = str(error)
    if text.startswith("Caught UserError in"):
        text = text.rsplit("UserError: ", 1)[-1]
    return _one_line(text)


def _one_line(text: str) -> str:
    return " ".join(text.split("Config search path:")[0].split())


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
