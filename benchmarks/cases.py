"""Networks of the benchmarks, built in the same way as by `sapnet train`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from sapnet.configs import CONFIG_DIR, compose_network
from sapnet.evaluation.footprint import draw_zeros
from sapnet.training.assemble import build_module

#: Overrides of `sapnet train` by the name in the tables.
MODELS = {
    "U": ["network=sapnet", "sampling=uniform_network"],
    "NU": ["network=sapnet", "sampling=nu"],
    "DMPHN_U": ["network=dmphn_1_2_4_8", "sampling=uniform_network"],
    "DMPHN_NU": ["network=dmphn_nu", "sampling=nu"],
    "SRN_U": ["network=srn", "sampling=uniform_network"],
    "SRN_NU": ["network=srn_nu", "sampling=nu"],
    "DMPHN_stack4": ["network=dmphn_stack4", "sampling=uniform_network"],
}
#: Uniform network that each non-uniform one is compared with.
PAIRS = {"NU": "U", "DMPHN_NU": "DMPHN_U", "SRN_NU": "SRN_U"}
_NARROW = ["network.channels=[4,4,6]"]
_NARROW_SAPNET = [*_NARROW, "network.stem=4", "network.encoder_blocks=1", "network.decoder_blocks=1"]


def compose(name: str, quick: bool = False) -> DictConfig:
    """Compose the config of a network with the paper's optimizer and without pretraining of the policy.

    Args:
        name: A key of `MODELS`.
        quick: Whether to use the smallest widths.
    """
    narrow = _NARROW_SAPNET if name in ("U", "NU") else _NARROW
    return compose_overrides([*MODELS[name], *(narrow if quick else [])])


def compose_overrides(overrides: Sequence[str]) -> DictConfig:
    """Compose a config from overrides of `sapnet train`, with the optimizer and policy of `compose`."""
    overrides = [*overrides, "optim=adam", "policy.pretrain=0"]
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return hydra.compose("count", overrides)


def builder(config: DictConfig) -> Callable[[], nn.Module]:
    """Return a picklable function that builds the network."""
    return partial(hydra.utils.instantiate, compose_network(config))


class Subject:
    """A network for timed forward passes and training steps.

    Weights that are initialised to zero get random values (`sapnet.evaluation.footprint.draw_zeros`).

    Args:
        config: Config from `compose`.
        device: Device of the network.
    """

    def __init__(self, config: DictConfig, device: torch.device):
        torch.manual_seed(0)
        self.module = build_module(config)
        draw_zeros(self.module.network)
        self.module.to(device)
        self.network, self.device = self.module.network, device

    def forward(self, blurred: Tensor) -> Callable[[], Any]:
        """Return a function that restores `blurred` without gradients."""
        self.network.eval()

        @torch.no_grad()
        def run() -> None:
            self.network(blurred)
            synchronise(self.device)

        return run

    @contextmanager
    def training(self, blurred: Tensor) -> Iterator[Callable[[], Any]]:
        """Provide a function that takes a training step; gradients are freed at the end of the context."""
        self.network.train()
        configured = self.module.configure_optimizers()
        optimizers = configured[0] if isinstance(configured, tuple) else configured
        batch = {"blurred": blurred, "sharp": blurred.flip(-1)}

        def run() -> None:
            total, _ = self.module.losses(batch)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            total.backward()
            for optimizer in optimizers:
                optimizer.step()
            synchronise(self.device)

        try:
            yield run
        finally:
            self.network.zero_grad(set_to_none=True)
            self.network.eval()


def image(width: int, height: int, device: torch.device) -> Tensor:
    """Return the random input of all networks, `[1, 3, height, width]` in [0, 1]."""
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
