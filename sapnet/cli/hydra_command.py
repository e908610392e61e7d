"""What the command-line entry points share: where the configs lie, and how a mistake ends.

A mistake of the user ends as one sentence on standard error and exit code 1, in a single run and in a multirun (whose
other jobs go on). With HYDRA_FULL_ERROR=1 the stack trace is shown instead. SIGTERM ends a command with exit code 143
and Ctrl-C with 130, a multirun as a whole; `sapnet.interrupts` says how.
"""

import difflib
import errno
import functools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException, InstantiationException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationResolutionError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
)

from sapnet import interrupts
from sapnet.checks import check_values
from sapnet.errors import UserError
from sapnet.interrupts import Interrupted

_PACKAGE = Path(__file__).resolve().parent

CONFIG_DIR: Path = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""The folder of the Hydra configs: inside the package where a wheel was installed, else beside it in the checkout."""

#: Keys of earlier versions.
_RENAMED = {"checkpoint": "ckpt_path"}
_TRACE = "HYDRA_FULL_ERROR"
#: Errors of the operating system that are about a place to write to, or its room.
_OF_PLACES = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
    | {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
)
_log = logging.getLogger(__name__)
Task = Callable[[DictConfig], Any]


def entry_point(config_name: str) -> Callable[[Task], Callable[[], None]]:
    """Turn `task(config)` into a command: Hydra's command line over `CONFIG_DIR/<config_name>.yaml`.

    Exit codes: 0; 1 after a mistake or an error (in a multirun: of any job); 143 after SIGTERM, 130 after Ctrl-C. The
    plain function stays reachable as `command.__wrapped__`.
    """

    # Read here, for `main` sets it too; a launcher's workers get the value with the pickled job.
    trace_wanted = os.environ.get(_TRACE) == "1"

    def decorate(task: Task) -> Callable[[], None]:
        in_task: list[bool] = []  # filled where an error comes from the task, not from Hydra

        @functools.wraps(task)
        def job(config: DictConfig) -> Any:
            # Here as well as below, since some launchers run jobs in other processes.
            with interrupts.raising():
                try:
                    check_values(config)
                    result = task(config)
                    interrupts.check()
                    return result
                except Exception as error:
                    in_task.append(True)
                    if interrupts.received() and mistake(error) is None:
                        # Such as that of a loader whose worker process has died of the same signal.
                        raise Interrupted(interrupts.received()) from error
                    if trace_wanted:
                        raise
                    _end_job(error)

        command = hydra.main(config_path=str(CONFIG_DIR), config_name=config_name, version_base="1.3")(job)

        @functools.wraps(task)
        def main() -> None:
            # A log file on a full disk would print a stack trace at each message.
            logging.raiseExceptions = trace_wanted
            with interrupts.raising(), nullcontext() if trace_wanted else _errors_handed_on():
                try:
                    command()
                except Interrupted as stop:
                    interrupts.leave(stop)
                except (KeyboardInterrupt, SystemExit) as stop:
                    # Lightning turns an interrupt that it sees itself into a SystemExit of code 1.
                    if trace_wanted or not any(isinstance(link, KeyboardInterrupt) for link in _chain(stop)):
                        raise
                    interrupts.leave(Interrupted(signal.SIGINT))
                except CompactHydraException as error:
                    if trace_wanted:
                        raise
                    _exit(_composition_mistake(error, config_name))
                except Exception as error:
                    if trace_wanted:
                        raise
                    # Before the task: Hydra cannot name the run's folder, or cannot write it.
                    sentence = None if in_task else mistake(error) or _missing_place(error)
                    if sentence is None:
                        raise
                    _exit(sentence)

        return main

    return decorate


def mistake(error: BaseException) -> str | None:
    """The sentence for the user where their mistake is behind `error`; None where it is a fault of the program."""
    for link in _chain(error):
        if isinstance(link, UserError):
            return _own_sentence(link)
        if isinstance(link, MissingMandatoryValue):
            return f"{link.full_key} is not given: add {link.full_key}=VALUE (--help lists the keys)."
        if isinstance(link, InterpolationToMissingValueError):
            key = _first_line(link).rpartition(": ")[2]
            return f"{key} is not given: add {key}=VALUE (--help lists the keys)."
        if isinstance(link, InterpolationKeyError | InterpolationResolutionError):
            return f"{link.full_key} in the config cannot be resolved: {_first_line(link)}."
        if isinstance(link, OSError) and link.errno in _OF_PLACES:
            return _place_mistake(link)
    if isinstance(error, InstantiationException):
        return f"{_one_line(str(error))} ({_TRACE}=1 shows the stack trace.)"
    if isinstance(error, CompactHydraException):
        return _one_line(str(error))
    return None


def _place_mistake(error: OSError) -> str:
    place = f"{error.filename}: it" if error.filename else "A file"
    return f"{place} cannot be written ({error.strerror or error}): make room there, or choose another folder."


def _missing_place(error: BaseException) -> str | None:
    # In the task itself a missing file may be a fault of the program.
    return next((_place_mistake(link) for link in _chain(error) if isinstance(link, FileNotFoundError)), None)


def _own_sentence(error: UserError) -> str:
    # A data loader's worker process hands on the type, and the whole trace as its message.
    text = str(error)
    if text.startswith("Caught UserError in"):
        text = text.rsplit("UserError: ", 1)[-1]
    return _one_line(text)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


class _JobFailed(CompactHydraException):
    """The sentence of a multirun's job, carried to the end of the sweep."""


def _end_job(error: Exception) -> NoReturn:
    sentence = mistake(error)
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        # Hydra itself tells only of the first failed job, and only after the last job.
        if sentence is None:
            _log.exception("job %s failed", hydra_config.job.num)
            raise error
        print(f"Job {hydra_config.job.num} failed: {sentence}", file=sys.stderr, flush=True)
        raise _JobFailed(sentence) from error
    if sentence is None:
        raise error
    # An exception would make Hydra print the overrides around the sentence.
    _exit(sentence)


def _composition_mistake(error: CompactHydraException, config_name: str) -> str:
    if isinstance(error, _JobFailed):
        return f"The sweep has ended with a failed job: {error}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, option = error.missing_cfg_file.rpartition("/")
        return f"{group}={option}: there is no such option; {group} can be {', '.join(error.options)}."
    if isinstance(error, OverrideParseException):
        return f"{error.override}: not a valid override; write KEY=VALUE, and in quotes what holds brackets or spaces."
    unknown = re.match(r"Could not override '([^']+)'", str(error))
    if unknown:
        known = _known_keys(config_name)
        renamed = _RENAMED.get(unknown[1])
        near = [renamed] if renamed in known else difflib.get_close_matches(unknown[1], known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"{unknown[1]}: there is no such key; {hint}--help lists them all."
    return mistake(error) or str(error)


def _known_keys(config_name: str) -> list[str]:
    def walk(node: Any, prefix: str) -> Iterator[str]:
        for key, value in node.items() if isinstance(node, dict) else ():
            yield f"{prefix}{key}"
            yield from walk(value, f"{prefix}{key}.")

    try:
        with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            return list(walk(OmegaConf.to_container(hydra.compose(config_name)), ""))
    except Exception:  # it only serves a hint
        return []


def _one_line(text: str) -> str:
    return " ".join(text.split("Config search path:")[0].split())


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")


@contextmanager
def _errors_handed_on() -> Iterator[None]:
    # With this variable Hydra raises errors instead of printing them in its own, longer words.
    before = os.environ.get(_TRACE)
    os.environ[_TRACE] = "1"
    try:
        yield
    finally:
        os.environ.pop(_TRACE)
        if before is not None:
            os.environ[_TRACE] = before


def _exit(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr, flush=True)
    raise SystemExit(1)
