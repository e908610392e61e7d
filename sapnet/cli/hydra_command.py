"""Hydra-based commands: error handling and exit codes.

A user error is reported as one sentence on standard error with exit code 1, in a single run and in a multirun (whose
other jobs continue). With HYDRA_FULL_ERROR=1 the stack trace is shown instead. SIGTERM ends a command, or a whole
multirun, with exit code 143, Ctrl-C with 130; see `sapnet.interrupts`.
"""

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from sapnet import interrupts
from sapnet.checks import check_values
from sapnet.cli.help import help_text
from sapnet.cli.job_output import numbered_output
from sapnet.cli.override_errors import override_error_message
from sapnet.cli.sweeps import report_after_error
from sapnet.configs import CONFIG_DIR
from sapnet.error_messages import FULL_ERROR, causes, missing_folder_message, user_error_message
from sapnet.interrupts import Interrupted

_log = logging.getLogger(__name__)
Task = Callable[[DictConfig], Any]


class _JobFailed(CompactHydraException):
    """Error of one job of a multirun, raised again at the end of the sweep."""


def hydra_command(config_name: str) -> Callable[[Task], Callable[[], None]]:
    """Turn `task(config)` into a command: Hydra's command line over `CONFIG_DIR/<config_name>.yaml`.

    Exit codes: 0; 1 after an error (in a multirun: of any job); 143 after SIGTERM, 130 after Ctrl-C. The undecorated
    function is available as `command.__wrapped__`.
    """

    # Read now, since `main` sets the variable; workers of a launcher get the value with the pickled job.
    trace_wanted = os.environ.get(FULL_ERROR) == "1"

    def decorate(task: Task) -> Callable[[], None]:
        in_task: list[bool] = []  # not empty if an error comes from the task, not from Hydra

        @functools.wraps(task)
        def job(config: DictConfig) -> Any:
            # Here as well as below, since some launchers run jobs in other processes.
            with interrupts.raise_on_signals(), numbered_output():
                try:
                    check_values(config)
                    result = task(config)
                    interrupts.check()
                    return result
                except Exception as error:
                    in_task.append(True)
                    if interrupts.received() and user_error_message(error) is None:
                        # For example an error of a data loader whose worker process received the same signal.
                        raise Interrupted(interrupts.received()) from error
                    if trace_wanted:
                        raise
                    _end_job(error)

        command = hydra.main(config_path=str(CONFIG_DIR), config_name=config_name, version_base="1.3")(job)

        @functools.wraps(task)
        def main() -> None:
            # Otherwise each message to a log file on a full disk prints a stack trace.
            logging.raiseExceptions = trace_wanted
            with interrupts.raise_on_signals(), nullcontext() if trace_wanted else _hydra_raises_errors():
                try:
                    words = sys.argv[1:]
                    if {"-h", "--help"} & set(words):
                        print(help_text(CONFIG_DIR, config_name, [word for word in words if not word.startswith("-")]))
                        return
                    with report_after_error():
                        command()
                except Interrupted as stop:
                    interrupts.exit_process(stop)
                except (KeyboardInterrupt, SystemExit) as stop:
                    # Lightning turns a KeyboardInterrupt into a SystemExit of code 1.
                    if trace_wanted or not any(isinstance(cause, KeyboardInterrupt) for cause in causes(stop)):
                        raise
                    interrupts.exit_process(Interrupted(signal.SIGINT))
                except _JobFailed as error:
                    _exit_with(f"The sweep has ended with a failed job: {error}")
                except CompactHydraException as error:
                    if trace_wanted:
                        raise
                    _exit_with(override_error_message(error, CONFIG_DIR, config_name))
                except Exception as error:
                    if trace_wanted:
                        raise
                    # Errors before the task: Hydra cannot determine the run folder, or cannot write to it.
                    message = None if in_task else user_error_message(error) or missing_folder_message(error)
                    if message is None:
                        raise
                    _exit_with(message)

        return main

    return decorate


def _end_job(error: Exception) -> NoReturn:
    message = user_error_message(error)
    hydra_config = HydraConfig.get()
    if hydra_config.mode == RunMode.MULTIRUN:
        # Hydra reports only the first failed job, and only after the last job.
        if message is None:
            _log.exception("job %s failed", hydra_config.job.num)
            raise error
        print(f"Job {hydra_config.job.num} failed: {message}", file=sys.stderr, flush=True)
        _write_to_log_file(message)
        raise _JobFailed(message) from error
    if message is None:
        raise error
    # On an exception Hydra would print the overrides around the message.
    _exit_with(message)


def _write_to_log_file(message: str) -> None:
    record = _log.makeRecord(_log.name, logging.ERROR, __file__, 0, message, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


@contextmanager
def _hydra_raises_errors() -> Iterator[None]:
    # With this variable set, Hydra raises errors instead of printing them itself.
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"
    try:
        yield
    finally:
        os.environ.pop(FULL_ERROR)
        if before is not None:
            os.environ[FULL_ERROR] = before


def _exit_with(message: str) -> NoReturn:
    print(message, file=sys.stderr, flush=True)
    raise SystemExit(1)
