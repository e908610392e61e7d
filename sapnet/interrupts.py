"""Handling of SIGTERM and SIGINT (Ctrl-C) in commands.

There are three modes. While a command imports its libraries, a signal ends the process at once (`install`). While the
command runs, it raises `Interrupted` (`raise_on_signals`). During training steps it is recorded (`defer`), and the
training saves a checkpoint after the step and ends.

This module imports only the standard library, because `install` is called before all other imports.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds after which a repeated signal ends the process at once. An earlier one counts as the same signal, because a
#: terminal and a parent process may both send it.
_REPEAT_SECONDS: dict[int, float] = {signal.SIGTERM: 30.0, signal.SIGINT: 1.0}
_MESSAGES: dict[int, str] = {signal.SIGTERM: "Terminated", signal.SIGINT: "Interrupted"}

_received: int | None = None
_received_at = 0.0
#: Number of nested `raise_on_signals` blocks.
_depth = 0


class Interrupted(BaseException):
    """A command was interrupted by a signal.

    Attributes:
        signum: Number of the signal.
        note: State that the command leaves behind, for the user.
    """

    def __init__(self, signum: int, note: str = "saved files are kept in the run folder"):
        super().__init__(signum, note)
        self.signum, self.note = signum, note

    def __str__(self) -> str:
        return f"{_MESSAGES.get(self.signum, f'Signal {self.signum}')}; {self.note}."

    @property
    def code(self) -> int:
        """Exit code: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.signum


def install() -> None:
    """Let a signal end the process at once, with its exit code and without a stack trace."""
    _set_handler(_exit_at_once)


@contextmanager
def raise_on_signals() -> Iterator[None]:
    """Let a signal raise `Interrupted` in the block; no effect outside the main thread.

    After a signal the handlers are not restored, because the process ends and the signal may be repeated.
    """
    global _received, _depth
    previous = {signum: signal.getsignal(signum) for signum in SIGNALS}
    if _depth == 0:
        _received = None
    _depth += 1
    _set_handler(_raise)
    try:
        yield
    finally:
        _depth -= 1
        if _received is None and _in_main_thread():
            for signum, handler in previous.items():
                if handler is not None:
                    signal.signal(signum, handler)


def defer() -> None:
    """Only record signals from now on, inside `raise_on_signals`; the caller polls `received`."""
    if _depth:
        _set_handler(_record)


def stop_deferring() -> None:
    """Undo `defer`."""
    if _depth:
        _set_handler(_raise)


def received() -> int:
    """Return the signal received since `raise_on_signals` was entered, or 0."""
    return _received or 0


def check() -> None:
    """Raise `Interrupted` if a signal was received and its exception was lost, for example in a destructor."""
    if _received is not None:
        raise Interrupted(_received)


def exit_process(interrupted: Interrupted) -> NoReturn:
    """Print the message on standard error and exit with the code of the signal.

    In a distributed training only the first process prints the message. The processes that Lightning launched exit with
    code 0, because after any other code Lightning would kill the first process, which may still be working.
    """
    if int(os.environ.get("LOCAL_RANK", 0)) > 0:
        external_launcher = "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ
        raise SystemExit(interrupted.code if external_launcher else 0)
    print(interrupted, file=sys.stderr, flush=True)
    raise SystemExit(interrupted.code)


def _set_handler(handler: Callable[[int, FrameType | None], Any]) -> None:
    if not _in_main_thread():
        return
    for signum in SIGNALS:
        # Background jobs of a shell and processes under nohup ignore signals on purpose.
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _exit_at_once(signum: int, frame: FrameType | None = None) -> NoReturn:
    # Not SystemExit, which may be caught during an import, or print a stack trace.
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        os.write(2, f"{_MESSAGES[signum]}.\n".encode())
    os._exit(128 + signum)


def _record(signum: int, frame: FrameType | None = None) -> bool:
    """Record a signal; return whether it is the first."""
    global _received, _received_at
    if _received is not None:
        if time.monotonic() - _received_at > _REPEAT_SECONDS[signum]:
            _exit_at_once(signum)
        return False
    _received, _received_at = signum, time.monotonic()
    return True


def _raise(signum: int, frame: FrameType | None = None) -> None:
    if _record(signum):
        raise Interrupted(signum)


@atexit.register
def _keep_exit_code() -> None:
    # Python removes its handlers at the very end; a repeated signal would then change the exit code.
    if _received is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
