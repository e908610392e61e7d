"""Progress of a training with two optimizers, in generator steps."""

import sys

import pytest

from sapnet.training.callbacks.progress import StepProgress, progress_line
from tests.training.two_optimizers import TwoOptimizers, fit


def test_lines_show_steps_speed_and_time_left(capsys):
    fit(TwoOptimizers(), callbacks=[StepProgress(steps=8, every=0.0)], max_epochs=2)
    output = capsys.readouterr().err
    assert "\r" not in output
    lines = output.splitlines()
    assert lines[0].startswith("step 1/8 (12%), ") and " steps/s, " in lines[0] and " left" in lines[0]
    assert any(line.startswith("step 4/8 (50%)") and ", val PSNR " in line for line in lines)
    assert lines[-1].startswith("step 8/8 (100%), ") and " in all, loss 0." in lines[-1]


def test_lines_are_printed_at_intervals_and_after_validations(capsys):
    fit(TwoOptimizers(), callbacks=[StepProgress(steps=8, every=1000.0)], max_epochs=2)
    steps = [line.split("/")[0] for line in capsys.readouterr().err.splitlines()]
    assert steps == ["step 4", "step 8"], "one line per validation, the last at the end"


def test_the_last_step_is_printed_without_a_validation(capsys):
    fit(TwoOptimizers(), callbacks=[StepProgress(steps=4, every=1000.0)], limit_val_batches=0)
    assert [line.split("/")[0] for line in capsys.readouterr().err.splitlines()] == ["step 4"]


def test_a_terminal_shows_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit(TwoOptimizers(), callbacks=[StepProgress(steps=4)])
    output = capsys.readouterr().err
    assert "training: 100%" in output and "4/4" in output and "val PSNR" in output


def test_a_disabled_bar_shows_nothing(capsys):
    progress = StepProgress(steps=4, every=0.0)
    progress.disable()
    fit(TwoOptimizers(), callbacks=[progress])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((0, 0, 100, 0.0), "step 0/100 (0%)"),
        ((30, 0, 100, 10.0), "step 30/100 (30%), 3 steps/s, 23 s left"),
        ((60, 50, 100, 100.0), "step 60/100 (60%), 0.1 steps/s, 6 min 40 s left"),
        ((30, 0, 100, 20.0, 10.0), "step 30/100 (30%), 3 steps/s, 47 s left"),
        ((100, 0, 100, 7200.0), "step 100/100 (100%), 0.0139 steps/s, 2 h 0 min in all"),
    ],
)
def test_the_speed_is_that_of_this_process_without_validations(arguments, line):
    assert progress_line(*arguments) == line


def test_a_validation_does_not_slow_down_the_training(monkeypatch, capsys):
    """A step takes 1 s and a validation batch 100 s of a false clock."""
    clock = [1.0]
    monkeypatch.setattr("sapnet.training.callbacks.progress.time.monotonic", lambda: clock[0])

    class Slow(TwoOptimizers):
        def training_step(self, batch, batch_idx):
            clock[0] += 1.0
            super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            clock[0] += 100.0
            super().validation_step(batch, batch_idx)

    fit(Slow(), callbacks=[StepProgress(steps=8, every=1000.0)], max_epochs=2)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("step 4/8 (50%), 1 steps/s, 3 min 24 s left")
    assert last.startswith("step 8/8 (100%), 1 steps/s, 6 min 48 s in all")
