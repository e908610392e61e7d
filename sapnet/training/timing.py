"""Time of a training step."""

import time
from itertools import islice, pairwise
from typing import cast

import hydra
import pytorch_lightning as pl
from omegaconf import DictConfig
from torch.optim import Optimizer

from sapnet.training.assemble import build_module

#: Steps to run before the measurement, and steps to measure.
WARM_UP, TIMED = 3, 8


def seconds_per_step(config: DictConfig) -> float:
    """Measure a few training steps of each phase with a temporary network, and return the mean over the training.

    The fastest step of each phase is used, so that other load on the machine does not count.
    """
    pl.seed_everything(config.seed, verbose=False)
    data = hydra.utils.instantiate(config.data, train=4 * config.data.batch, cache=True)
    data.setup("fit")
    module = build_module(config).train()
    optimizers, _ = cast(tuple[list[Optimizer], list], module.configure_optimizers())
    seconds = 0.0
    for phase in module.phases:
        # In the middle of a phase points are drawn and the policy learns.
        module.generator_steps, times = phase.begin + phase.steps // 2, []
        batches = (batch for _ in range(WARM_UP + TIMED) for batch in data.train_dataloader())
        for batch in islice(batches, WARM_UP + TIMED):
            times.append(time.perf_counter())
            loss, _ = module.losses(batch)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        times.append(time.perf_counter())
        seconds += min(end - begin for begin, end in pairwise(times[WARM_UP:])) * phase.steps / config.steps
    return seconds
