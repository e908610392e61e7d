"""Progress, the end and the guard of a run count generator steps, with two optimizers."""

import sys

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from sapnet.errors import UserError
from sapnet.training.checkpoints import AtomicCheckpointIO, load_checkpoint, stamp
from sapnet.training.progress import NonFiniteGuard, StepProgress, StopAtSteps, duration, last_good, progress_line
from tests.training.two_optimizers import MODEL, TwoOptimizers, fit


def test_a_log_file_gets_lines_with_steps_speed_and_time_left(capsys):
    fit(TwoOptimizers(), callbacks=[StepProgress(steps=8, every=0.0)], max_epochs=2)
    output = capsys.readouterr().err
    assert "\r" not in output
    lines = output.splitlines()
    assert lines[0].startswith("step 1/8 (12%), ") and " steps/s, " in lines[0] and " left" in lines[0]
    assert any(line.startswith("step 4/8 (50%)") and ", val PSNR " in line for line in lines)
    assert lines[-1].startswith("step 8/8 (100%), ") and " in all, loss 0." in lines[-1]


def test_lines_are_rare(capsys):
    fit(TwoOptimizers(), callbacks=[StepProgress(steps=8, every=1000.0)], max_epochs=2)
    steps = [line.split("/")[0] for line in capsys.readouterr().err.splitlines()]
    assert steps == ["step 4", "step 8"], "one line for each validation, the last of them at the end"


def test_a_run_that_does_not_end_with_a_validation_ends_with_a_line(capsys):
    fit(TwoOptimizers(), callbacks=[StepProgress(steps=4, every=1000.0)], limit_val_batches=0)
    assert [line.split("/")[0] for line in capsys.readouterr().err.splitlines()] == ["step 4"]


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit(TwoOptimizers(), callbacks=[StepProgress(steps=4)])
    output = capsys.readouterr().err
    assert "training: 100%" in output and "4/4" in output and "val PSNR" in output


def test_other_processes_show_nothing(capsys):
    quiet = StepProgress(steps=4, every=0.0)
    quiet.disable()
    fit(TwoOptimizers(), callbacks=[quiet])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((0, 0, 100, 0.0), "step 0/100 (0%)"),
        ((30, 0, 100, 10.0), "step 30/100 (30%), 3 steps/s, 23 s left"),
        ((60, 50, 100, 100.0), "step 60/100 (60%), 0.1 steps/s, 6 min 40 s left"),
        ((100, 0, 100, 7200.0), "step 100/100 (100%), 0.0139 steps/s, 2 h 0 min in all"),
    ],
)
def test_a_line_tells_the_speed_of_this_part_of_the_run(arguments, line):
    assert progress_line(*arguments) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (18600, "5 h 10 min"), (187200, "2 d 4 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize("steps", [1, 5, 8])
def test_a_run_ends_after_its_generator_steps(steps):
    module = TwoOptimizers()
    trainer = fit(module, callbacks=[StopAtSteps(steps)], max_epochs=-1, enable_progress_bar=False)
    assert (module.generator_steps, trainer.global_step) == (steps, 2 * steps)


def test_a_resumed_run_that_is_done_takes_no_step(tmp_path):
    fit(TwoOptimizers(), callbacks=[StopAtSteps(3)], enable_progress_bar=False).save_checkpoint(tmp_path / "a.ckpt")
    module = TwoOptimizers()
    options = {"max_epochs": -1, "enable_progress_bar": False, "plugins": [AtomicCheckpointIO()]}
    fit(module, checkpoint=str(tmp_path / "a.ckpt"), callbacks=[StopAtSteps(3)], **options)
    assert module.generator_steps == 3


def test_a_loss_that_is_no_number_stops_the_run_before_the_weights_change(tmp_path):
    saving = ModelCheckpoint(tmp_path, "last", every_n_epochs=1, enable_version_counter=False)
    module = TwoOptimizers(poison=7)
    sentence = (
        r"stopped at generator step 7: the loss is nan; the last good checkpoint is \S+/last\.ckpt \(step 4\): resume"
        r" from it \(ckpt_path=last\) with a lower learning rate \(optim\.optimizer\.lr is 0\.01\) or clipped gradients"
    )
    with pytest.raises(UserError, match=sentence):
        fit(
            module,
            callbacks=[NonFiniteGuard(tmp_path), saving],
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=True,
            enable_progress_bar=False,
            max_epochs=3,
        )
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    saved = AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    assert saved["sapnet"]["generator_steps"] == 4
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_weights_that_are_no_numbers_are_not_saved_over_good_ones(tmp_path):
    module = TwoOptimizers()
    trainer = fit(
        module, callbacks=[NonFiniteGuard(tmp_path)], plugins=[AtomicCheckpointIO()], enable_progress_bar=False
    )
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    before = (tmp_path / "last.ckpt").read_bytes()
    with torch.no_grad():
        module.network.weight[0] = float("inf")
    with pytest.raises(UserError, match=r"generator step 4: network\.weight holds numbers that are not finite"):
        trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").read_bytes() == before


class Validation(TwoOptimizers):
    """Its validation gives no number from a step on."""

    def __init__(self, since: int):
        super().__init__()
        self.since = since

    def validation_step(self, batch, batch_idx):
        if self.generator_steps >= self.since:
            batch["blurred"] = batch["blurred"] * float("nan")
        super().validation_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("since", "named"), [(8, r"last good checkpoint is \S+ \(step 4\)"), (4, "no good checkpoint")]
)
def test_a_checkpoint_whose_validation_is_no_number_is_not_written(tmp_path, since, named):
    saving = [
        ModelCheckpoint(tmp_path, "best", monitor="val/psnr", mode="max", enable_version_counter=False),
        ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=False, enable_version_counter=False),
    ]
    with pytest.raises(UserError, match=rf"stopped at generator step {since}: val/psnr is nan; .*{named}"):
        fit(
            Validation(since),
            callbacks=[*saving, NonFiniteGuard(tmp_path)],
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=True,
            enable_progress_bar=False,
            max_epochs=3,
        )
    steps = [load_checkpoint(path)["sapnet"]["generator_steps"] for path in tmp_path.glob("*.ckpt")]
    assert steps == ([4, 4] if since == 8 else [])


def test_the_checkpoint_of_the_very_weights_that_failed_is_not_called_good(tmp_path):
    def write(name: str, step: int) -> None:
        content = {"state_dict": {}}
        stamp(content, MODEL, step)
        AtomicCheckpointIO().save_checkpoint(content, tmp_path / name)

    assert last_good(tmp_path, 7) is None
    write("last.ckpt", 7)
    assert last_good(tmp_path, 7) is None and last_good(tmp_path, 8) == ("last", 7)
    write("best.ckpt", 4)
    assert last_good(tmp_path, 7) == ("best", 4) and last_good(tmp_path, 8) == ("last", 7)
    (tmp_path / "last.ckpt").write_bytes(b"damaged")
    assert last_good(tmp_path, 8) == ("best", 4)
