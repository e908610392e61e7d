"""Memory of photos: the estimate, what is available, and the refusal of what does not fit."""

import sys
from pathlib import Path

import pytest
import torch

from sapnet.evaluation import photo_memory
from sapnet.evaluation.footprint import in_fresh_process, peak_memory
from sapnet.evaluation.photo_memory import MemoryEstimate, available_memory, frugal_allocation, measure, too_large

CPU = torch.device("cpu")
MIB = 2**20
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak is not available")


def pass_of_blocks(height: int, width: int) -> None:
    """Allocate like a network: many blocks, of which two of 64 bytes per pixel live at a time."""
    previous = None
    for _ in range(4):
        block = torch.ones(height * width * 64, dtype=torch.uint8)
        previous = block + 1 if previous is None else block + previous
        del block


def estimate_and_peaks() -> tuple[MemoryEstimate | None, list[tuple[int, int, int | None]]]:
    estimate = measure(pass_of_blocks, 2_000_000, CPU)
    peaks = []
    for height, width in ((600, 800), (800, 1200)):
        with frugal_allocation():
            peaks.append((height, width, peak_memory(lambda h=height, w=width: pass_of_blocks(h, w))[1]))
    return estimate, peaks


@linux
def test_the_estimate_is_the_measured_peak_of_larger_images():
    estimate, peaks = in_fresh_process(estimate_and_peaks)
    for height, width, peak in peaks:
        assert estimate.bytes_for(height, width) == pytest.approx(peak, rel=0.15)
    assert estimate.per_pixel == pytest.approx(3 * 64, rel=0.15), "two blocks and their sum"


def test_the_estimate_is_a_straight_line_through_two_small_images(monkeypatch):
    sizes = []

    def peak(run, device):
        run()
        height, width = sizes[-1]
        return None, 5 * MIB + 1000 * height * width

    monkeypatch.setattr(photo_memory, "peak_memory", peak)
    estimate = measure(lambda height, width: sizes.append((height, width)), 4000 * 3000, CPU)
    assert estimate.bytes_for(3000, 4000) == pytest.approx(5 * MIB + 1000 * 12e6)
    assert sizes == [(192, 192), (192, 192), (384, 384)]
    sizes.clear()
    measure(lambda height, width: sizes.append((height, width)), 600 * 800, CPU)
    assert sizes[1:] == [(64, 64), (128, 128)], "less for smaller photos"


def test_without_a_measured_peak_there_is_no_estimate(monkeypatch):
    monkeypatch.setattr(photo_memory, "peak_memory", lambda run, device: (run(), None))
    assert measure(lambda height, width: None, 10**6, CPU) is None


@linux
def test_available_memory_is_at_most_the_machine_s():
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < available_memory(CPU) < total
    assert available_memory(torch.device("meta")) is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "max", "memory.current": "5", "memory.stat": "active_file 1"}, None),
        ({"memory.max": "100", "memory.current": "70", "memory.stat": "active_file 20\ninactive_file 5"}, 55),
        ({"memory.max": "100", "memory.current": "170", "memory.stat": "anon 1"}, 0),
        (
            {"memory.limit_in_bytes": "100", "memory.usage_in_bytes": "70", "memory.stat": "total_active_file 20"},
            50,
        ),
        ({}, None),
    ],
)
def test_a_container_limits_the_memory(files, expected, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(photo_memory, "_control_groups", lambda: [tmp_path])
    monkeypatch.setattr(photo_memory, "_system_memory", lambda: 80)
    assert available_memory(CPU) == (80 if expected is None else min(expected, 80))


def test_the_refusal_names_file_size_and_both_amounts():
    text = str(too_large(Path("big.jpg"), 3000, 4000, 39.26 * 2**30, 18 * 2**30))
    assert text == (
        "big.jpg: 4000x3000 pixels take about 39.3 GiB of memory, and 18.0 GiB are available:"
        " make the image smaller first."
    )
    text = str(too_large(Path("big.jpg"), 3000, 4000, 39.26 * 2**30, 18 * 2**30, 0))
    assert text.endswith("18.0 GiB are available: leave out --tile 0.")
    text = str(too_large(Path("big.jpg"), 3000, 4000, 19 * 2**30, 18 * 2**30, 2048))
    assert "4000x3000 pixels in tiles of 2048 take about 19.0 GiB" in text and text.endswith("leave out --tile 2048.")
