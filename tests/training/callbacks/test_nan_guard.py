"""Trainings with NaN or infinite values."""

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from sapnet.checkpoints.files import add_metadata, load_checkpoint
from sapnet.checkpoints.lightning_io import AtomicCheckpointIO
from sapnet.errors import UserError
from sapnet.training.callbacks.nan_guard import NanGuard, last_good_checkpoint
from tests.training.two_optimizers import MODEL, TwoOptimizers, fit


def test_a_nan_loss_stops_the_training_before_the_weights_change(tmp_path):
    save_last = ModelCheckpoint(tmp_path, "last", every_n_epochs=1, enable_version_counter=False)
    module = TwoOptimizers(nan_step=7)
    message = (
        r"stopped at generator step 7: the loss is nan; the last good checkpoint is \S+/last\.ckpt \(step 4\): resume"
        r" from it \(ckpt_path=last\) with a lower learning rate \(optim\.optimizer\.lr is 0\.01\) or clipped gradients"
    )
    with pytest.raises(UserError, match=message):
        fit(
            module,
            callbacks=[NanGuard(tmp_path), save_last],
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=True,
            enable_progress_bar=False,
            max_epochs=3,
        )
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    saved = AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    assert saved["sapnet"]["generator_steps"] == 4
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    module = TwoOptimizers()
    trainer = fit(module, callbacks=[NanGuard(tmp_path)], plugins=[AtomicCheckpointIO()], enable_progress_bar=False)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    before = (tmp_path / "last.ckpt").read_bytes()
    with torch.no_grad():
        module.network.weight[0] = float("inf")
    with pytest.raises(UserError, match=r"generator step 4: network\.weight contains values that are not finite"):
        trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").read_bytes() == before


class NanValidation(TwoOptimizers):
    """Validation metrics are NaN from a step on."""

    def __init__(self, first_nan_step: int):
        super().__init__()
        self.first_nan_step = first_nan_step

    def validation_step(self, batch, batch_idx):
        if self.generator_steps >= self.first_nan_step:
            batch["blurred"] = batch["blurred"] * float("nan")
        super().validation_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("nan_step", "advice"), [(8, r"last good checkpoint is \S+ \(step 4\)"), (4, "no good checkpoint")]
)
def test_a_checkpoint_with_a_nan_validation_is_not_saved(tmp_path, nan_step, advice):
    checkpoint_callbacks = [
        ModelCheckpoint(tmp_path, "best", monitor="val/psnr", mode="max", enable_version_counter=False),
        ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=False, enable_version_counter=False),
    ]
    with pytest.raises(UserError, match=rf"stopped at generator step {nan_step}: val/psnr is nan; .*{advice}"):
        fit(
            NanValidation(nan_step),
            callbacks=[*checkpoint_callbacks, NanGuard(tmp_path)],
            plugins=[AtomicCheckpointIO()],
            enable_checkpointing=True,
            enable_progress_bar=False,
            max_epochs=3,
        )
    steps = [load_checkpoint(path)["sapnet"]["generator_steps"] for path in tmp_path.glob("*.ckpt")]
    assert steps == ([4, 4] if nan_step == 8 else [])


def test_a_checkpoint_of_the_failed_step_is_not_good(tmp_path):
    def write(name: str, step: int) -> None:
        content = {"state_dict": {}}
        add_metadata(content, MODEL, step)
        AtomicCheckpointIO().save_checkpoint(content, tmp_path / name)

    assert last_good_checkpoint(tmp_path, 7) is None
    write("last.ckpt", 7)
    assert last_good_checkpoint(tmp_path, 7) is None and last_good_checkpoint(tmp_path, 8) == ("last", 7)
    write("best.ckpt", 4)
    assert last_good_checkpoint(tmp_path, 7) == ("best", 4) and last_good_checkpoint(tmp_path, 8) == ("last", 7)
    (tmp_path / "last.ckpt").write_bytes(b"damaged")
    assert last_good_checkpoint(tmp_path, 8) == ("best", 4)
