"""Progress lines, and failures that do not stop the other photos."""

from pathlib import Path

import pytest
import torch

from sapnet.errors import UserError
from sapnet.evaluation.photo_progress import Failures, Progress


def test_a_line_names_photo_time_and_what_is_left():
    progress = Progress([100, 300, 600])
    assert progress.line(Path("a.jpg"), 100, 1.24) == "1/3 a.jpg 1.2 s, about 11 s left"
    assert progress.line(Path("b.jpg"), 300, 2.76) == "2/3 b.jpg 2.8 s, about 6 s left"
    assert progress.line(Path("c.jpg"), 600, 6) == "3/3 c.jpg 6.0 s"


def test_a_line_of_a_tile_names_the_time_left_for_all_photos():
    progress = Progress([100, 300, 100])
    progress.line(Path("a.jpg"), 100, 10)
    assert progress.tile_line(Path("b.jpg"), 300, 1, 3, 12) == "2/3 b.jpg, tile 1/3, about 33 s left"
    assert progress.tile_line(Path("b.jpg"), 300, 3, 3, 30) == "2/3 b.jpg, tile 3/3, about 10 s left"
    assert Progress([300]).tile_line(Path("b.jpg"), 300, 3, 3, 30) == "1/1 b.jpg, tile 3/3"


def test_a_failed_photo_counts_and_takes_no_time():
    progress = Progress([100, 300, 100])
    progress.line(Path("a.jpg"), 100, 2)
    progress.skip(300)
    assert progress.line(Path("c.jpg"), 100, 2) == "3/3 c.jpg 2.0 s"


def fail(error: BaseException, failures: Failures) -> None:
    with failures.reported(Path("a.jpg")):
        raise error


def test_failures_are_reported_and_counted(capsys):
    failures = Failures(20)
    failures.raise_if_any()
    fail(UserError("a.jpg is damaged."), failures)
    fail(MemoryError(), failures)
    fail(torch.OutOfMemoryError("CUDA out of memory"), failures)
    fail(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), failures)
    memory = "a.jpg takes more memory than there is: choose smaller tiles with --tile, or make it smaller."
    assert capsys.readouterr().err.splitlines() == ["a.jpg is damaged.", memory, memory, memory]
    with pytest.raises(UserError, match="4 of 20 photos were not restored"):
        failures.raise_if_any()


def test_the_only_photo_raises_its_own_error():
    with pytest.raises(UserError, match=r"a.jpg is damaged"):
        fail(UserError("a.jpg is damaged."), Failures(1))


def test_errors_of_the_program_are_not_hidden():
    with pytest.raises(RuntimeError, match="size mismatch"):
        fail(RuntimeError("size mismatch"), Failures(2))
