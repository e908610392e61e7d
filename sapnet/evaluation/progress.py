"""Progress of an evaluation in images, as a bar or as lines of a log."""

import sys
import time
from types import TracebackType

from tqdm import tqdm


class ImageProgress:
    """Progress on standard error: a bar in a terminal, elsewhere a line at intervals and one at the end.

    Args:
        total: Number of images.
        done: Number of images that are evaluated already; they do not count for the speed.
        every: Seconds between two lines.
    """

    def __init__(self, total: int, done: int = 0, every: float = 30.0):
        self._total, self._first, self._done, self._every = total, done, done, every
        self._start = self._printed_at = time.monotonic()
        self._printed = done
        self._bar = tqdm(total=total, initial=done, desc="evaluating", unit="image", disable=None)
        self._as_lines = bool(self._bar.disable)

    def __enter__(self) -> "ImageProgress":
        return self

    def update(self, done: int) -> None:
        """Set the number of evaluated images."""
        self._bar.update(done - self._done)
        self._done = done
        if self._as_lines and time.monotonic() - self._printed_at >= self._every:
            self._print()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._bar.close()
        if kind is None and self._as_lines and self._printed < self._done:
            self._print()

    def _print(self) -> None:
        self._printed, self._printed_at = self._done, time.monotonic()
        line = image_line(self._done, self._first, self._total, self._printed_at - self._start)
        print(line, file=sys.stderr, flush=True)


def image_line(done: int, first: int, total: int, seconds: float) -> str:
    """Describe the progress of an evaluation.

    Args:
        done: Number of evaluated images.
        first: Number of images that were evaluated before.
        total: Number of images.
        seconds: Time since then.
    """
    parts = [f"evaluated {done}/{total} images ({100 * done // max(1, total)}%)"]
    if done > first:
        each = seconds / (done - first)
        parts.append(f"{each:.3g} s per image")
        parts.append(f"{duration((total - done) * each)} left" if done < total else f"{duration(seconds)} in all")
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Format a time in its two largest units: `40 s`, `3 min 20 s`, `5 h 10 min`, `2 d 4 h`."""
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    amounts = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((index for index, (amount, _) in enumerate(amounts) if amount), 3)
    return " ".join(f"{amount} {unit}" for amount, unit in amounts[first : first + 2])
