"""SIGTERM and SIGINT (Ctrl-C): how a command ends on them, from its first line to its last.

A command passes through three ways of handling them. While its libraries are imported (`install`) a signal ends the
process at once. While its task runs (`raising`) it raises `Interrupted`. While training steps are taken (`note`,
`raise_again`) it is remembered, and the training ends itself after the step, when a checkpoint is saved.

Only the standard library is imported here, since the front door calls `install` before anything else.
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
#: Seconds after the first signal from which a second one ends the process at once. Sooner, it is taken for the same
#: one: a terminal and a parent process may both deliver it.
_AGAIN = {signal.SIGTERM: 30.0, signal.SIGINT: 1.0}
_WORDS = {signal.SIGTERM: "Terminated", signal.SIGINT: "Interrupted"}

_received: int | None = None
_received_at = 0.0
_depth = 0


class Interrupted(BaseException):
    """A signal ends the command.

    Attributes:
        signum: Which one.
        remark: What the user should know of the state that is left behind.
    """

    def __init__(self, signum: int, remark: str = "what was saved stays in the run's folder"):
        super().__init__(signum, remark)
        self.signum, self.remark = signum, remark

    def __str__(self) -> str:
        return f"{_WORDS.get(self.signum, f'Signal {self.signum}')}; {self.remark}."

    @property
    def code(self) -> int:
        """The exit code: 143 after SIGTERM, 130 after SIGINT."""
        return 128 + self.signum


def install() -> None:
    """Let a signal end the process at once, with its exit code and without a stack trace."""
    _handle(_end_at_once)


@contextmanager
def raising() -> Iterator[None]:
    """Let a signal raise `Interrupted` in the block. Without effect outside the main thread.

    After a signal the handlers stay as they are: the process ends, and the same signal may come a second time.
    """
    global _received, _depth
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    if _depth == 0:
        _received = None
    _depth += 1
    _handle(_raise)
    try:
        yield
    finally:
        _depth -= 1
        if _received is None and _in_main_thread():
            for signum, handler in before.items():
                if handler is not None:
                    signal.signal(signum, handler)


def note() -> None:
    """Within `raising`, only record signals from now on; the caller polls `received`."""
    if _depth:
        _handle(_note)


def raise_again() -> None:
    """Undo `note`."""
    if _depth:
        _handle(_raise)


def received() -> int:
    """Return the signal that has arrived since `raising` began, or 0."""
    return _received or 0


def check() -> None:
    """Raise `Interrupted` for a signal whose own exception was lost, as those raised in a destructor are."""
    if _received is not None:
        raise Interrupted(_received)


def leave(stop: Interrupted) -> NoReturn:
    """End the process: one line on standard error, and the signal's exit code.

    Of several processes that train together only the first speaks. Those that Lightning has started end with code 0,
    since it would kill the first one, which may still be at work, after any other.
    """
    if int(os.environ.get("LOCAL_RANK", 0)) > 0:
        external = "TORCHELASTIC_RUN_ID" in os.environ or "SLURM_PROCID" in os.environ
        raise SystemExit(stop.code if external else 0)
    print(stop, file=sys.stderr, flush=True)
    raise SystemExit(stop.code)


def _handle(handler: Callable[[int, FrameType | None], Any]) -> None:
    if not _in_main_thread():
        return
    for signum in SIGNALS:
        # A shell's background jobs, and what nohup starts, are meant to ignore it.
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, handler)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _end_at_once(signum: int, frame: FrameType | None = None) -> NoReturn:
    # No SystemExit: raised inside an import it may be caught, or leave a stack trace.
    if int(os.environ.get("LOCAL_RANK", 0)) == 0:
        os.write(2, f"{_WORDS[signal.Signals(signum)]}.\n".encode())
    os._exit(128 + signum)


def _note(signum: int, frame: FrameType | None = None) -> bool:
    """Remember the first signal; return whether this is it."""
    global _received, _received_at
    if _received is not None:
        if time.monotonic() - _received_at > _AGAIN[signal.Signals(signum)]:
            _end_at_once(signum)
        return False
    _received, _received_at = signum, time.monotonic()
    return True


def _raise(signum: int, frame: FrameType | None = None) -> None:
    if _note(signum):
        raise Interrupted(signum)


@atexit.register
def _keep_exit_code() -> None:
    # Python takes its handlers away last of all; the same signal a second time would then change the exit code.
    if _received is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
