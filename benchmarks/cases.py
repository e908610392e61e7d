"""The networks that are timed side by side, each built as `sapnet train` builds it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from sapnet.configs import CONFIG_DIR, network_config
from sapnet.evaluation.footprint import draw_zeros
from sapnet.training.assemble import build_module

#: Overrides of `sapnet train` by the name that the tables use.
MODELS = {
    "U": ["network=sapnet", "sampling=uniform_network"],
    "NU": ["network=sapnet", "sampling=nu"],
    "DMPHN_U": ["network=dmphn_1_2_4_8", "sampling=uniform_network"],
    "DMPHN_NU": ["network=dmphn_nu", "sampling=nu"],
    "SRN_U": ["network=srn", "sampling=uniform_network"],
    "SRN_NU": ["network=srn_nu", "sampling=nu"],
    "DMPHN_stack4": ["network=dmphn_stack4", "sampling=uniform_network"],
}
#: The uniform network beside each non-uniform one.
PAIRS = {"NU": "U", "DMPHN_NU": "DMPHN_U", "SRN_NU": "SRN_U"}
_NARROW = ["network.channels=[4,4,6]"]
_NARROW_OURS = [*_NARROW, "network.stem=4", "network.encoder_blocks=1", "network.decoder_blocks=1"]


def compose(name: str, quick: bool = False) -> DictConfig:
    """Return the composed config of a network: the paper's optimizer, and a policy that learns from the first step.

    Args:
        name: A key of `MODELS`.
        quick: The smallest widths instead of the network's own.
    """
    narrow = _NARROW_OURS if name in ("U", "NU") else _NARROW
    return compose_overrides([*MODELS[name], *(narrow if quick else [])])


def compose_overrides(overrides: Sequence[str]) -> DictConfig:
    """Return the config composed with overrides of `sapnet train`, and with :func:`compose`'s optimizer and policy."""
    words = [*overrides, "optim=adam", "policy.pretrain=0"]
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return hydra.compose("count", words)


def builder(config: DictConfig) -> Callable[[], nn.Module]:
    """Return what builds the network, picklable."""
    return partial(hydra.utils.instantiate, network_config(config))


class Subject:
    """A network ready to be run forward and in training steps.

    Weights are random where a trained network's are not zero, see :func:`sapnet.evaluation.footprint.draw_zeros`.

    Args:
        config: From :func:`compose`.
        device: Where to run.
    """

    def __init__(self, config: DictConfig, device: torch.device):
        torch.manual_seed(0)
        self.module = build_module(config)
        draw_zeros(self.module.network)
        self.module.to(device)
        self.network, self.device = self.module.network, device

    def forward(self, blurred: Tensor) -> Callable[[], Any]:
        """Return a run that restores `blurred` without gradients."""
        self.network.eval()

        @torch.no_grad()
        def run() -> None:
            self.network(blurred)
            synchronise(self.device)

        return run

    @contextmanager
    def training(self, blurred: Tensor) -> Iterator[Callable[[], Any]]:
        """Give a run that takes one step: forward, all losses, backward, Adam; memory is let go of at the end."""
        self.network.train()
        made = self.module.configure_optimizers()
        optimizers = made[0] if isinstance(made, tuple) else made
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
    """The one random input of all networks at a size, `[1, 3, height, width]` in [0, 1]."""
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)


def synchronise(device: torch.device) -> None:
    """Wait for what was asked of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
