"""Messages for user errors, shown without a stack trace."""

import errno
import re
from collections.abc import Iterator

from hydra.errors import CompactHydraException, InstantiationException
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
)

from sapnet.errors import UserError

#: Environment variable of Hydra; with the value 1 stack traces are shown.
FULL_ERROR = "HYDRA_FULL_ERROR"
#: Operating system errors about paths that cannot be written, or about disk space.
_UNWRITABLE = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
    | {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
)
#: Hydra's message if a config sets an argument that its `_target_` does not have.
_UNEXPECTED_ARGUMENT = re.compile(
    r"(?P<target>\w+)(\.__init__)?\(\) got an unexpected keyword argument '(?P<argument>\w+)'"
)


def user_error_message(error: BaseException) -> str | None:
    """Return a message if the user's input caused `error`; None for an error of the program."""
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
        unexpected = _UNEXPECTED_ARGUMENT.search(str(error))
        if unexpected:
            return (
                f"{unexpected['target']} has no option {unexpected['argument']}: leave out the override, or the option"
                " of a config group such as ablation=, that sets it."
            )
        return f"{_one_line(str(error))} ({FULL_ERROR}=1 shows the stack trace.)"
    if isinstance(error, CompactHydraException):
        return _one_line(str(error))
    return None


def missing_folder_message(error: BaseException) -> str | None:
    """Return a message if a folder cannot be created; None otherwise.

    Only for errors raised outside a command's own code, where a missing file may be an error of the program.
    """
    return next((_unwritable_message(cause) for cause in causes(error) if isinstance(cause, FileNotFoundError)), None)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, starting with the error."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        yield cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def _unwritable_message(error: OSError) -> str:
    file = f"{error.filename}: the file" if error.filename else "A file"
    return f"{file} cannot be written ({error.strerror or error}): free some space, or choose another folder."


def _message_of(error: UserError) -> str:
    # An error from a data loader's worker process has the whole stack trace as its message.
    text = str(error)
    if text.startswith("Caught UserError in"):
        text = text.rsplit("UserError: ", 1)[-1]
    return _one_line(text)


def _one_line(text: str) -> str:
    return " ".join(text.split("Config search path:")[0].split())


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
