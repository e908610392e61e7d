"""Whether photos fit into the memory at hand, estimated before they are restored.

The memory of a network is the peak of a forward pass, which is measured on two small images. It grows in proportion to
the pixels, so that a straight line through the two values gives that of a photo. On five networks and photos of 0.2 to
3 megapixels it was 0.98 to 1.26 of the measured peak (CPU, one thread).
"""

import ctypes
import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from sapnet.errors import UserError
from sapnet.evaluation.footprint import peak_memory

#: Photos of fewer pixels are not checked.
SMALL = 256 * 256
#: The larger one of the two measured images has this share of the pixels of the largest photo, within limits.
_SHARE, _SMALLEST_SIDE, _LARGEST_SIDE = 1 / 32, 128, 384
_GROUPS = Path("/sys/fs/cgroup")
# Parameters of glibc's `mallopt`: blocks of this size and more are taken from the system and returned one by one; so
# much free memory at the end of the heap is kept.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_FRUGAL_BYTES, _USUAL_BYTES = 2**16, 2**25


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of a forward pass as a straight line.

    Attributes:
        constant: Bytes for an image without pixels.
        per_pixel: Bytes for every pixel.
    """

    constant: float
    per_pixel: float

    def bytes_for(self, height: int, width: int) -> float:
        """Return the bytes for a photo."""
        return self.constant + self.per_pixel * height * width


def measure(restore: Callable[[int, int], object], largest: int, device: torch.device) -> MemoryEstimate | None:
    """Measure the memory per pixel on two small images; None if the system does not tell the peak.

    Args:
        restore: Restores an image of a height and width.
        largest: Pixels of the largest photo; the measured images are much smaller.
        device: Device of the network.
    """
    side = math.sqrt(largest * _SHARE)
    large = 16 * round(min(max(side, _SMALLEST_SIDE), _LARGEST_SIDE) / 16)
    sides, peaks = (large // 2, large), []
    with frugal_allocation():
        restore(sides[0], sides[0])  # one-time costs
        for side in sides:
            _, peak = peak_memory(lambda side=side: restore(side, side), device)
            if peak is None:
                return None
            peaks.append(peak)
    per_pixel = max(peaks[1] - peaks[0], 0) / (sides[1] ** 2 - sides[0] ** 2)
    return MemoryEstimate(max(peaks[0] - per_pixel * sides[0] ** 2, 0), per_pixel)


@contextmanager
def frugal_allocation(needed: bool = True) -> Iterator[None]:
    """Let the C library return freed memory to the system at once, where it is glibc.

    It otherwise keeps a part for later allocations, which is faster, but up to doubles the memory of a network. The
    estimate is of a network without it.

    Args:
        needed: Whether to do so.
    """
    library = ctypes.CDLL(None)
    if not needed or not hasattr(library, "mallopt"):
        yield
        return
    gc.collect()
    library.malloc_trim(0)
    library.mallopt(_MMAP_THRESHOLD, _FRUGAL_BYTES)
    try:
        yield
    finally:
        # What glibc itself arrives at where large blocks have been freed.
        library.mallopt(_MMAP_THRESHOLD, _USUAL_BYTES)
        library.mallopt(_TRIM_THRESHOLD, 2 * _USUAL_BYTES)


def too_large(
    photo: Path, height: int, width: int, needed: float, available: int, tile: int | None = None
) -> UserError:
    """Return the error for a photo that does not fit into the memory.

    Args:
        photo: Its file.
        height: Its rows.
        width: Its columns.
        needed: Bytes that it takes.
        available: Bytes that can be allocated.
        tile: Side of the tiles that the user chose; 0 for none, None for no choice.
    """
    tiles = f" in tiles of {tile}" if tile else ""
    way_out = "make the image smaller first" if tile is None else f"leave out --tile {tile}"
    return UserError(
        f"{photo}: {width}x{height} pixels{tiles} take about {gib(needed)} GiB of memory, and {gib(available)} GiB"
        f" are available: {way_out}."
    )


def available_memory(device: torch.device) -> int | None:
    """Return the bytes that can be allocated on a device; None if the system does not tell."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type != "cpu":
        return None
    found = [_system_memory(), *map(_group_memory, _control_groups())]
    return min((value for value in found if value is not None), default=None)


def gib(number: float) -> str:
    """Return a number of bytes in GiB with one decimal, or two below one GiB."""
    return f"{number / 2**30:.1f}" if number >= 2**30 else f"{number / 2**30:.2f}"


def _system_memory() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _control_groups() -> list[Path]:
    """Return the folders of the control groups of this process, which limit the memory of a container or job."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root = _GROUPS / "memory" if controllers else _GROUPS
        own = root / path.lstrip("/")
        folders += [folder for folder in (own, *own.parents) if folder.is_relative_to(root)]
    return folders


def _group_memory(folder: Path) -> int | None:
    """Return what the processes of a control group may still allocate; None if there is no limit."""
    names = ("memory.max", "memory.current", ""), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
    for limit, usage, prefix in names:
        try:
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            # Cached files are given up when the memory is needed.
            cached = sum(int(statistics.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
            free = int((folder / limit).read_text()) - int((folder / usage).read_text()) + cached
            return max(free, 0)
        except (OSError, ValueError):  # no limit is the word "max"
            continue
    return None
