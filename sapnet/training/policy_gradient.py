"""Loss whose gradient is the policy gradient of Sec. 3.1.1 (Eq. 6-7) from a single draw."""

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
    """Settings of the policy's training. The defaults are those of the paper, except for a reward of lower variance.

    Attributes:
        estimator: Estimator of the policy gradient: `reinforce` (Eq. 6-7), or `gate`, the first-order value of each
            drawn point from the backward pass of the restoration loss (`sapnet.sampling.gates`).
        baseline: Baseline subtracted from the reward of REINFORCE: `none` (Eq. 5); `improvement`, the part of the
            reward that the action cannot change; `paired`, the reward of a second draw of the stage, without gradients.
        credit: `local` (Eq. 7 per pixel) or `global`.
        alpha: Weight of the error in the reward.
        beta: Weight of the penalty on too many points.
        rate: Learning rate of the policy relative to that of the generator.
        pretrain: Share of the steps, at the beginning, in which the generator learns with points drawn uniformly at
            random.
        warm_start: `none`, or `error`: during `pretrain` the policy learns to predict the error of the previous stage,
            and points are drawn from the policy.
        warm_start_window: Side in pixels of the square window that smooths this error; odd. A wider window selects
            whole objects rather than their edges.
        settle: Share of the steps, at the end, in which the policy is fixed and the generator learns with the top `L`
            points, as in inference.

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
        options = {
            "estimator": ("reinforce", "gate"),
            "baseline": ("improvement", "none", "paired"),
            "credit": ("local", "global"),
            "warm_start": ("none", "error"),
        }
        for key, values in options.items():
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
        """Baseline of `stage_reward`; a paired baseline replaces the previous stage."""
        return "none" if self.baseline == "none" else "improvement"

    def check(self, network: AdaptiveNetwork) -> None:
        """Check that a network supports the settings.

        Raises:
            UserError: It does not.
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
    """Return a surrogate loss whose gradient is minus the single-sample policy gradient of one stage (Eq. 7).

    The objective is `J = E[mean over pixels of R - sum over scales of the penalty]`, averaged over patches; means
    exclude padding. Every scale has one independent binary map `a_r ~ Bernoulli(p_r)`, so `log pi` is a sum over scales
    and positions. Only the gradient of the loss is meaningful, not its value, and it reaches only the policy.

    With `N` the number of valid canvas positions and `R_j` the reward pooled to the canvas, including the penalty:

    - `credit="global"`: `mean(R) * sum_j grad log pi_j`, the unbiased estimate of the gradient of `J`;
    - `credit="local"`: `1/N * sum_j R_j grad log pi_j`, Eq. 7 per pixel. It ignores the effect of a point on its
      neighbours, so it is biased, but its variance is much smaller. It is unbiased if `R_j` depends only on `a_j`. The
      penalty, one number for all positions, has `1/N` of its weight in `"global"`.

    Args:
        sampling: Points drawn by a learned sampler.
        reward: Reward per pixel of the joined image, with or without padding; treated as a constant.
        credit: `local` or `global`, see above.
        budget_control: `indicator` subtracts the penalty on too many points; `calibrated` needs none.
        beta: Weight of the penalty.

    Raises:
        UserError: An option is unknown.
        ValueError: The points were not drawn from a policy.
    """
    if credit not in ("local", "global"):
        raise UserError(f"credit={credit!r} is unknown: use 'local' or 'global'.")
    if budget_control not in ("calibrated", "indicator"):
        raise UserError(f"budget_control={budget_control!r} is unknown: use 'calibrated' or 'indicator'.")
    if not sampling.actions:
        raise ValueError("a policy gradient needs points drawn by a learned sampler")
    patches = _patches(reward.detach(), sampling)
    total = sampling.map.new_zeros(())
    for scale, actions in sampling.actions.items():
        stride = sampling.strides[scale]
        gains = pool(patches, stride, sampling.valid)
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
    """Return the logarithm of the probability of the drawn action at each position."""
    # A single logarithm: with one per branch, the branch not taken could add 0 * inf to the gradient.
    return torch.where(actions, probabilities, 1 - probabilities).log()


def _patches(reward: Tensor, sampling: SampledPoints) -> Tensor:
    height, width = sampling.map.shape[-2:]
    reward = F.pad(reward, (0, width - reward.shape[-1], 0, height - reward.shape[-2]))
    return split(reward[:, None], *sampling.grid)[:, 0]
