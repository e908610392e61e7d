"""Output of the jobs of a sweep that run at the same time in one terminal."""

import io
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode


class PrefixedLines(io.TextIOBase):
    """Text stream that writes whole lines, each with a prefix, to another stream.

    It is not a terminal, so that progress is printed as lines and not drawn as a bar.
    """

    def __init__(self, stream: Any, prefix: str):
        super().__init__()
        self._stream, self._prefix, self._rest = stream, prefix, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            # At once, so that the lines of two processes do not mix.
            self._stream.write("".join(f"{self._prefix}{line}\n" for line in lines))
            self._stream.flush()
        return len(text)

    def finish(self) -> None:
        """Write an incomplete last line."""
        if self._rest:
            self.write("\n")


def numbered_output() -> Any:
    """Return a context in which the output of a job of the launcher `joblib` has the prefix `[#NUMBER] `."""
    if not HydraConfig.initialized():
        return nullcontext()
    job = HydraConfig.get()
    parallel = job.mode == RunMode.MULTIRUN and job.runtime.choices.get("hydra/launcher") == "joblib"
    return prefixed_output(f"[#{job.job.num}] ") if parallel else nullcontext()


@contextmanager
def prefixed_output(prefix: str) -> Iterator[None]:
    """Write a prefix before each line on standard output and standard error, also before those of the log."""
    before = sys.stdout, sys.stderr
    streams = PrefixedLines(sys.stdout, prefix), PrefixedLines(sys.stderr, prefix)
    replaced = dict(zip(map(id, before), streams, strict=True))
    handlers = [each for each in logging.getLogger().handlers if id(getattr(each, "stream", None)) in replaced]
    console = [(handler, handler.stream) for handler in handlers if isinstance(handler, logging.StreamHandler)]
    for handler, stream in console:
        handler.setStream(replaced[id(stream)])
    sys.stdout, sys.stderr = streams
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for handler, stream in console:
            handler.setStream(stream)
        for each in streams:
            each.finish()
