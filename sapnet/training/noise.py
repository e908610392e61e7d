"""Signal to noise of single-draw policy gradients, by estimator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sapnet.errors import UserError
from sapnet.evaluation.point_values import frozen
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.training.adaptive import AdaptiveModule
from sapnet.training.losses import StageLoss
from sapnet.training.policy_gradient import PolicySettings

#: What is compared, by the name it is reported under; credit is local.
ESTIMATORS = {
    "reinforce, no baseline": PolicySettings(baseline="none"),
    "reinforce, improvement": PolicySettings(),
    "reinforce, paired": PolicySettings(baseline="paired"),
    "gate": PolicySettings(estimator="gate"),
}


@dataclass
class Moments:
    """First and second moment of vectors that come one by one."""

    number: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, vector: Tensor) -> None:
        """Take one more."""
        self.number += 1
        self.total = self.total + vector.double()
        self.squares = self.squares + vector.double().square()

    @property
    def variance(self) -> float:
        """Trace of the unbiased covariance; needs two vectors."""
        spread = self.squares - self.total.square() / self.number
        return (spread / (self.number - 1)).sum().item()

    @property
    def mean_square(self) -> float:
        """Mean squared length."""
        return (self.squares / self.number).sum().item()

    @property
    def signal(self) -> float:
        """Squared length of the mean, less what the vectors' scatter adds to it."""
        mean = self.total / self.number
        return max(mean.square().sum().item() - self.variance / self.number, 0.0)


def signal_to_noise(
    network: AdaptiveNetwork, batch: Mapping[str, Any], draws: int = 24, seed: int = 0
) -> tuple[list[dict[str, Any]], list[str]]:
    """Draw the policy gradient of one batch many times with each estimator, as training computes it.

    The restoration loss behind `gate` is the L1 of all stages. All estimators see draws from the same seeds, and
    PyTorch's global random state is left as it was.

    Args:
        network: In evaluation mode, on the batch's device.
        batch: `blurred`, `sharp` and, where it is known, `extent`.
        draws: At least 2.
        seed: Of the first draw.

    Returns:
        By estimator ``signal`` (length of the mean gradient of all the policy's parameters, corrected for scatter),
        ``deviation`` (root mean square of one draw around the mean), and their ratio ``signal_to_noise``; and a
        sentence for what cannot be measured.
    """
    if network.sampler != "learned":
        return [], [f"Signal to noise of the policy gradient: the sampler {network.sampler} has no policy."]
    rows, skipped = [], []
    for name, settings in ESTIMATORS.items():
        try:
            settings.check(network)
        except UserError as error:
            skipped.append(f"Signal to noise of {name}: {error}")
            continue
        moments = _moments(network, settings, batch, draws, seed)
        signal, deviation = moments.signal**0.5, moments.variance**0.5
        ratio = signal / deviation if deviation > 0 else float("nan")
        rows.append({"estimator": name, "signal_to_noise": ratio, "signal": signal, "deviation": deviation})
    return rows, skipped


def _moments(
    network: AdaptiveNetwork, settings: PolicySettings, batch: Mapping[str, Any], draws: int, seed: int
) -> Moments:
    module = AdaptiveModule(network, StageLoss(), partial(torch.optim.Adam, lr=1e-3), policy=settings)
    policy, moments = list(network.samplers.parameters()), Moments()
    device = batch["blurred"].device
    training = network.training
    with frozen(network.generator), torch.random.fork_rng([device] if device.type == "cuda" else []):
        # Points are drawn in training mode; the generator stays in evaluation mode.
        network.train()
        network.generator.eval()
        try:
            for number in range(draws):
                torch.manual_seed(seed + number)
                total, _ = module.losses(batch)
                parts = torch.autograd.grad(total, policy)
                moments.add(torch.cat([part.flatten() for part in parts]).cpu())
        finally:
            network.train(training)
    return moments
