"""A small module with two optimizers, a step count and validation samples, for tests of callbacks and loggers."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from sapnet.checkpoints.files import add_metadata

MODEL = {"_target_": "sapnet.models.sapnet.SAPNet", "stem": 4, "channels": [4, 4, 8], "stages": 1}


class Pairs(Dataset):
    """Four pairs of 16 x 16 noise."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict[str, Any]:
        sharp = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(index))
        return {"name": f"{index}.png", "blurred": 0.5 * sharp + 0.25, "sharp": sharp}


class TwoOptimizers(pl.LightningModule):
    """A convolution and a bias with one optimizer each; Lightning counts two steps per generator step."""

    def __init__(self, nan_step: int | None = None):
        super().__init__()
        self.automatic_optimization = False
        self.network = nn.Conv2d(3, 3, 1)
        self.policy = nn.Parameter(torch.zeros(3))
        self.nan_step = nan_step
        self.generator_steps = 0
        self.validation_samples: list[dict[str, Any]] = []

    def configure_optimizers(self):
        return [torch.optim.Adam(self.network.parameters(), 1e-2), torch.optim.Adam([self.policy], 1e-2)]

    def training_step(self, batch, batch_idx):
        output = self.network(batch["blurred"]) + self.policy[:, None, None]
        loss = (output - batch["sharp"]).abs().mean()
        if self.generator_steps + 1 == self.nan_step:
            loss = loss * float("nan")
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
        self.generator_steps += 1
        self.log_dict({"train/loss": loss.detach(), "generator_steps": float(self.generator_steps)})

    def validation_step(self, batch, batch_idx):
        output = self.network(batch["blurred"])
        self.log("val/psnr", -10 * ((output - batch["sharp"]) ** 2).mean().log10())
        self.validation_samples = [
            {"name": name, "blurred": blurred, "outputs": [blurred, restored], "sharp": sharp}
            for name, blurred, restored, sharp in zip(
                batch["name"], batch["blurred"], output, batch["sharp"], strict=True
            )
        ]

    def on_validation_epoch_end(self):
        self.log("generator_steps", float(self.generator_steps))

    def on_save_checkpoint(self, checkpoint):
        add_metadata(checkpoint, MODEL, self.generator_steps)

    def on_load_checkpoint(self, checkpoint):
        self.generator_steps = checkpoint["sapnet"]["generator_steps"]


def fit(module: TwoOptimizers, checkpoint: str | None = None, **options: Any) -> pl.Trainer:
    """Train with batches of one (four steps an epoch) and one validation an epoch; `options` go to the real Trainer."""
    defaults = {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 1, "num_sanity_val_steps": 1}
    defaults |= {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    defaults |= {} if "callbacks" in options else {"enable_progress_bar": False}
    trainer = pl.Trainer(**(defaults | options))
    trainer.fit(module, DataLoader(Pairs()), DataLoader(Pairs(), batch_size=2), ckpt_path=checkpoint)
    return trainer
