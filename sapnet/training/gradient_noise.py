"""Signal-to-noise ratio of single-draw policy gradients, by estimator."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sapnet.errors import UserError
from sapnet.evaluation.point_values import frozen
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.training.losses import StageLoss
from sapnet.training.policy_gradient import PolicySettings
from sapnet.training.policy_gradient_module import PolicyGradientModule

#: Compared estimators, by their names in reports. Credit is local.
ESTIMATORS = {
    "reinforce, no baseline": PolicySettings(baseline="none"),
    "reinforce, improvement": PolicySettings(),
    "reinforce, paired": PolicySettings(baseline="paired"),
    "gate": PolicySettings(estimator="gate"),
}


@dataclass
class Moments:
    """Running first and second moments of vectors."""

    number: int = 0
    total: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, vector: Tensor) -> None:
        """Add a vector."""
        self.number += 1
        self.total = self.total + vector.double()
        self.squares = self.squares + vector.double().square()

    @property
    def variance(self) -> float:
        """Trace of the unbiased covariance; needs at least two vectors."""
        deviations = self.squares - self.total.square() / self.number
        return (deviations / (self.number - 1)).sum().item()

    @property
    def mean_square(self) -> float:
        """Mean squared norm."""
        return (self.squares / self.number).sum().item()

    @property
    def signal(self) -> float:
        """Squared norm of the mean, corrected for the variance of the mean."""
        mean = self.total / self.number
        return max(mean.square().sum().item() - self.variance / self.number, 0.0)


def signal_to_noise(
    network: AdaptiveNetwork, batch: Mapping[str, Any], draws: int = 24, seed: int = 0
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure the policy gradient of one batch over many draws, for each estimator.

    The gradients are computed as in training. The restoration loss of `gate` is the L1 loss of all stages. All
    estimators use the same seeds. The global random state of PyTorch is restored.

    Args:
        network: Network in evaluation mode, on the device of the batch.
        batch: `blurred`, `sharp` and, if available, `extent`.
        draws: Number of draws, at least 2.
        seed: Seed of the first draw.

    Returns:
        Rows with `estimator`, `signal` (norm of the mean gradient of the policy's parameters, corrected for the
        variance of the mean), `deviation` (root mean square deviation of a draw from the mean) and their ratio
        `signal_to_noise`; and messages about estimators that cannot be measured.
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
    module = PolicyGradientModule(network, StageLoss(), partial(torch.optim.Adam, lr=1e-3), policy=settings)
    policy, moments = list(network.samplers.parameters()), Moments()
    device = batch["blurred"].device
    training = network.training
    with frozen(network.generator), torch.random.fork_rng([device] if device.type == "cuda" else []):
        # Points are drawn in training mode, while the generator stays in evaluation mode.
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
