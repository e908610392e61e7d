"""The moving average of the generator's weights."""

import csv
from functools import partial
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from sapnet.checkpoints.architecture import averaged_weights, network_weights
from sapnet.checkpoints.files import load_checkpoint
from sapnet.checkpoints.network import network_from_checkpoint
from sapnet.errors import UserError
from sapnet.training.callbacks.ema import EmaWeights
from sapnet.training.losses import StageLoss
from sapnet.training.restoration_module import RestorationModule
from tests.training.resuming.test_resumed_training import train

EMA = "callbacks=[default,ema]"


class OneLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, blurred):
        return [self.layer(blurred)]


class Record(pl.Callback):
    """Records the weights after each step."""

    def __init__(self):
        self.weights: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.weights.append(pl_module.network.layer.weight.detach().clone())


def fit(*callbacks: pl.Callback, steps: int = 20, precision: str = "32-true") -> RestorationModule:
    torch.manual_seed(0)
    module = RestorationModule(OneLayer(), StageLoss(), partial(torch.optim.Adam, lr=0.1))
    pair = {"blurred": torch.rand(1, 3, 8, 8), "sharp": torch.rand(1, 3, 8, 8), "name": ["x"]}
    names = ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar", "limit_val_batches")
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", callbacks=list(callbacks), precision=precision, **dict.fromkeys(names, False)
    )
    loader = torch.utils.data.DataLoader([pair] * steps, batch_size=None)
    trainer.fit(module, loader, loader)
    return module


def test_the_average_follows_its_formula_from_the_initial_weights():
    torch.manual_seed(0)
    expected, record, ema = OneLayer().layer.weight.detach().double(), Record(), EmaWeights(decay=0.5)
    module = fit(record, ema)
    for step, weights in enumerate(record.weights, start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights.double()
    raw = module.network.layer.weight.detach().clone()
    with ema.averaged(module):
        torch.testing.assert_close(module.network.layer.weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(module.network.layer.weight, raw) and not torch.equal(raw.double(), expected)
    assert ema.updates == len(record.weights) == 20


def test_without_decay_it_is_the_last_weights():
    ema = EmaWeights(decay=0.0)
    module = fit(ema, steps=3)
    raw = module.network.layer.weight.detach().clone()
    with ema.averaged(module):
        torch.testing.assert_close(module.network.layer.weight, raw)


def test_the_average_of_bfloat16_weights_is_float32():
    ema = EmaWeights()
    module = fit(ema, steps=3, precision="bf16-true")
    checkpoint: dict = {}
    ema.on_save_checkpoint(module.trainer, module, checkpoint)
    assert module.network.layer.weight.dtype == torch.bfloat16
    assert {value.dtype for value in checkpoint["ema"]["weights"].values()} == {torch.float32}
    assert set(checkpoint["ema"]["weights"]) == {"layer.weight", "layer.bias"}, "integers are not averaged"


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_out_of_range_is_named(decay):
    with pytest.raises(UserError, match=f"callbacks.ema.decay={decay}: give a number"):
        EmaWeights(decay)


@pytest.mark.slow
def test_a_training_continues_its_average_to_the_bit_and_is_not_changed_by_it(tmp_path: Path, monkeypatch):
    settings = ("sampling=nu", "steps=3", "policy.pretrain=0.4", "checkpoint_every=1", "logger=csv")
    plain = load_checkpoint(train(tmp_path / "plain", *settings))
    whole = load_checkpoint(train(tmp_path / "whole", *settings, EMA))
    step = RestorationModule.training_step

    def killed(self, batch, batch_idx):
        if self.generator_steps == 2:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="killed"):
        patch.setattr(RestorationModule, "training_step", killed)
        train(tmp_path / "cut", *settings, EMA)
    resumed = load_checkpoint(train(tmp_path / "cut", *settings, EMA))
    assert resumed["ema"]["updates"] == whole["ema"]["updates"] == 3 and "ema" not in plain
    for name, value in whole["ema"]["weights"].items():
        assert torch.equal(value, resumed["ema"]["weights"][name]), name
    for name, value in plain["state_dict"].items():
        assert torch.equal(value, whole["state_dict"][name]) and torch.equal(value, resumed["state_dict"][name]), name

    files = [tmp_path / run / "metrics.csv" for run in ("plain", "whole")]
    rows, with_average = ([*csv.DictReader(file.read_text().splitlines())] for file in files)
    measured = [row.pop("val/psnr_ema") for row in with_average]
    assert rows == with_average, "the validation draws the same points"
    assert [bool(value) for value in measured] == [bool(row["val/psnr"]) for row in rows]
    assert any(value and value != row["val/psnr"] for value, row in zip(measured, rows, strict=True))

    raw, averaged = network_weights(whole), averaged_weights(whole)
    changed = {name.partition(".")[0] for name in raw if not torch.equal(raw[name], averaged[name])}
    assert changed == {"generator"}, "the policy keeps its weights"
    path = tmp_path / "whole" / "checkpoints" / "last.ckpt"
    network, _ = network_from_checkpoint(path, ema=True)
    assert all(torch.equal(value, averaged[name]) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match="has no moving average of its weights: train with callbacks"):
        network_from_checkpoint(tmp_path / "plain" / "checkpoints" / "last.ckpt", ema=True)
