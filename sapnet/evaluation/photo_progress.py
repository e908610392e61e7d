"""Progress lines and failures of a command that restores many photos."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from sapnet.errors import UserError
from sapnet.evaluation.progress import duration


@dataclass
class Failures:
    """Photos that could not be restored.

    Attributes:
        total: Number of all photos.
        count: Number of photos that failed.
    """

    total: int
    count: int = 0

    @contextmanager
    def reported(self, photo: Path) -> Iterator[None]:
        """Report a failure in the block in one sentence on standard error, and go on after the block.

        Raises:
            UserError: The block failed, and there is no other photo.
        """
        try:
            yield
        except UserError as error:
            self._add(error)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            self._add(
                UserError(
                    f"{photo} takes more memory than there is: choose smaller tiles with --tile, or make it smaller."
                )
            )

    def raise_if_any(self) -> None:
        """Raise a summary if photos have failed.

        Raises:
            UserError: A photo has failed.
        """
        if self.count:
            raise UserError(f"{self.count} of {self.total} photos were not restored: the reasons are above.")

    def _add(self, error: UserError) -> None:
        if self.total == 1:
            raise error
        self.count += 1
        print(error, file=sys.stderr, flush=True)


class Progress:
    """Counts restored photos and estimates the time that is left from the pixels.

    Args:
        pixels: Pixels of each photo to restore.
    """

    def __init__(self, pixels: Sequence[int]):
        self.photos, self.left = len(pixels), sum(pixels)
        self.number, self.seconds, self.pixels = 0, 0.0, 0

    def line(self, photo: Path, pixels: int, seconds: float) -> str:
        """Count a restored photo and return its line, such as `3/20 photo.jpg 1.2 s, about 20 s left`.

        Args:
            photo: Its file.
            pixels: Its pixels.
            seconds: Time of its restoration.
        """
        self.skip(pixels)
        self.seconds += seconds
        self.pixels += pixels
        text = f"{self.number}/{self.photos} {photo} {seconds:.1f} s"
        return f"{text}, about {duration(self.seconds / self.pixels * self.left)} left" if self.left else text

    def tile_line(self, photo: Path, pixels: int, done: int, tiles: int, seconds: float) -> str:
        """Return the line of a tile, such as `3/20 photo.jpg, tile 5/12, about 40 s left` for all photos.

        Args:
            photo: Its file.
            pixels: Its pixels.
            done: Restored tiles.
            tiles: All tiles.
            seconds: Time since the first tile began.
        """
        share = pixels * done / tiles
        left = (self.seconds + seconds) / (self.pixels + share) * (self.left - share)
        text = f"{self.number + 1}/{self.photos} {photo}, tile {done}/{tiles}"
        return f"{text}, about {duration(left)} left" if self.left > share else text

    def skip(self, pixels: int) -> None:
        """Count a photo that was not restored."""
        self.number += 1
        self.left -= pixels


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
