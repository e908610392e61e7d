"""The policy gradient of Sec. 3.1.1 (Eq. 6-7) from a single draw, as a loss to minimise."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sapnet.errors import UserError
from sapnet.layers.hierarchy import split
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.sampling.sampled_points import SampledPoints
from sapnet.sampling.selection import pool
from sapnet.training.reward import budget_penalty


@dataclass(frozen=True)
class PolicySettings:
    """How a policy learns; the defaults are the paper's, with a reward of lower variance.

    Attributes:
        estimator: Of the policy gradient: ``reinforce`` (Eq. 6-7), or ``gate``, the first-order value of each drawn
            point from the backward pass of the restoration loss (`sapnet.sampling.gates`).
        baseline: Subtracted from the reward of REINFORCE: ``none`` (Eq. 5 as it stands); ``improvement``, what the
            action cannot change; ``paired``, the reward of a second draw of the stage, made without gradients.
        credit: ``local`` (Eq. 7 per pixel) or ``global``.
        alpha: Weight of the error in the reward.
        beta: Weight of the penalty on too many points.
        rate: Learning rate of the policy, relative to the generator's.
        pretrain: Share of the steps in which the generator learns with points drawn uniformly at random.
        warm_start: ``none``, or ``error``: in these first steps the policy imitates the error of the stage before, and
            points are drawn from it.
        warm_start_window: Side of the square window, in pixels, that smooths the error that is imitated; odd. A wider
            window marks whole objects rather than their edges.
        settle: Share of the steps, the last ones, in which the policy is fixed and the generator learns from the top
            ``L`` points, which inference takes.

    Raises:
        UserError: A value is unknown or out of range.
    """

    estimator: str = "reinforce"
    baseline: str = "improvement"
    credit: str = "local"
    alpha: float = 1.0
    beta: float = 0.5
    rate: float = 1.0
    pretrain: float = 0.0
    warm_start: str = "none"
    warm_start_window: int = 5
    settle: float = 0.0

    def __post_init__(self):
        """Check the values."""
        known = {
            "estimator": ("reinforce", "gate"),
            "baseline": ("improvement", "none", "paired"),
            "credit": ("local", "global"),
            "warm_start": ("none", "error"),
        }
        for key, values in known.items():
            if getattr(self, key) not in values:
                raise UserError(f"policy.{key}={getattr(self, key)} is unknown: use {' or '.join(values)}.")
        if self.warm_start_window < 1 or self.warm_start_window % 2 == 0:
            raise UserError(f"policy.warm_start_window={self.warm_start_window}: give an odd number of pixels.")
        if self.pretrain < 0 or self.settle < 0 or self.pretrain + self.settle > 1:
            raise UserError(
                f"policy.pretrain={self.pretrain}, policy.settle={self.settle}: give shares that sum to 1 at most."
            )

    @property
    def reward(self) -> str:
        """What `stage_reward` subtracts: a paired baseline takes the place of the stage before."""
        return "none" if self.baseline == "none" else "improvement"

    def check(self, network: AdaptiveNetwork) -> None:
        """Check that the settings suit an adaptive network.

        Raises:
            UserError: They do not.
        """
        name = type(network.generator).__name__
        if self.estimator == "gate" and network.settings["budget_control"] != "calibrated":
            raise UserError("policy.estimator=gate has no penalty: use sampling.budget_control=calibrated with it.")
        for key, value, ability in (
            ("estimator", "gate", "supports_gates"),
            ("baseline", "paired", "supports_comparison"),
        ):
            if getattr(self, key) == value and not getattr(network.generator, ability, False):
                raise UserError(f"policy.{key}={value}: {name} does not support it; use another {key}.")


def policy_loss(
    sampling: SampledPoints,
    reward: Float[Tensor, "b h w"],
    credit: str = "local",
    budget_control: str = "calibrated",
    beta: float = 0.5,
) -> Float[Tensor, ""]:
    """Surrogate whose gradient is minus the single-sample policy gradient of one stage (Eq. 7).

    The objective is `J = E[mean over pixels of R - sum over scales of the penalty]`, averaged over patches; padding
    counts in no mean. Every scale holds one independent binary map `a_r ~ Bernoulli(p_r)`, so `log pi` sums over
    scales and positions. The value of the loss means nothing, only its gradient does; it reaches the policy alone.

    With `N` the number of valid canvas positions and `R_j` the reward pooled to the canvas, penalty included:

    - `credit="global"`: `mean(R) * sum_j grad log pi_j`, the unbiased estimate of the gradient of `J`;
    - `credit="local"`: `1/N * sum_j R_j grad log pi_j`, Eq. 7 pixel by pixel. It leaves out that a point also helps its
      neighbours, so it is biased, but its variance is far smaller; unbiased where `R_j` depends on `a_j` alone. The
      penalty, one number for all positions, weighs `1/N` of what it weighs in `"global"`.

    Args:
        sampling: A learned sampler's answer with drawn actions.
        reward: Of the joined image, with or without the padding; treated as a constant.
        credit: As above.
        budget_control: `"indicator"` subtracts the penalty on too many points, `"calibrated"` needs none.
        beta: Weight of the penalty.

    Raises:
        UserError: If an option is unknown.
        ValueError: If the sampling was not drawn from a policy.
    """
    if credit not in ("local", "global"):
        raise UserError(f"credit={credit!r} is unknown: use 'local' or 'global'.")
    if budget_control not in ("calibrated", "indicator"):
        raise UserError(f"budget_control={budget_control!r} is unknown: use 'calibrated' or 'indicator'.")
    if not sampling.actions:
        raise ValueError("a policy gradient needs points that a learned sampler drew")
    parts = _patches(reward.detach(), sampling)
    total = sampling.map.new_zeros(())
    for scale, actions in sampling.actions.items():
        stride = sampling.strides[scale]
        gains = pool(parts, stride, sampling.valid)
        cover = torch.ones_like(gains) if sampling.valid is None else pool(sampling.valid.to(gains.dtype), stride)
        number = cover.sum(dim=(1, 2)).clamp(min=1e-6)
        if budget_control == "indicator":
            gains = gains - cover * budget_penalty(sampling, scale, beta)[:, None, None]
        log_prob = log_probability(sampling.probabilities[scale], actions)
        if credit == "local":
            per_patch = (gains * log_prob).sum(dim=(1, 2)) / number
        else:
            per_patch = gains.sum(dim=(1, 2)) / number * log_prob.sum(dim=(1, 2))
        total = total - per_patch.mean()
    return total


def log_probability(probabilities: Float[Tensor, "p h w"], actions: Bool[Tensor, "p h w"]) -> Float[Tensor, "p h w"]:
    """Logarithm of each position's probability of the action that it took."""
    # One logarithm of what happened: the branch not taken could bring a 0 * inf into the gradient.
    return torch.where(actions, probabilities, 1 - probabilities).log()


def _patches(reward: Tensor, sampling: SampledPoints) -> Tensor:
    height, width = sampling.map.shape[-2:]
    reward = F.pad(reward, (0, width - reward.shape[-1], 0, height - reward.shape[-2]))
    return split(reward[:, None], *sampling.grid)[:, 0]
