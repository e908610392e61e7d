"""Joint training of generator and policy: two optimizers, one backward pass (Sec. 3.1.1)."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from sapnet.training.policy_gradient import policy_loss
from sapnet.training.restoration import RestorationModule
from sapnet.training.reward import stage_reward


class AdaptiveModule(RestorationModule):
    """Trains an adaptive network: the generator by its loss, the policy by the policy gradient.

    While the generator is pre-trained alone, points are drawn uniformly at random; then both learn together. A control
    sampler has no parameters: there is one optimizer then, and the control chooses from the first step on.

    Args:
        settings: Those of :class:`RestorationModule`.
        pretrain_steps: Generator steps before the policy joins.
        baseline: ``improvement``, or ``none`` (Eq. 5 as it stands).
        credit: ``local`` (Eq. 7 per pixel) or ``global``.
        alpha: Weight of the error in the reward.
        beta: Weight of the penalty on too many points.
        policy_rate: Learning rate of the policy, relative to the generator's.
    """

    def __init__(
        self,
        *settings: Any,
        pretrain_steps: int = 0,
        baseline: str = "improvement",
        credit: str = "local",
        alpha: float = 1.0,
        beta: float = 0.5,
        policy_rate: float = 1.0,
        **more: Any,
    ):
        super().__init__(*settings, **more)
        self.pretrain_steps = pretrain_steps
        self.baseline, self.credit, self.alpha, self.beta = baseline, credit, alpha, beta
        self.policy_rate = policy_rate
        self.learned = any(True for _ in self.network.samplers.parameters())

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Return the generator's parameters and, if there is a policy, its own."""
        generator, policy = self.network.generator, self.network.samplers
        return [list(part.parameters()) for part in (generator, policy) if self.learned or part is generator]

    def configure_optimizers(self):
        """Make one optimizer and schedule for each; the policy's follows the generator's course at its own rate."""
        found = super().configure_optimizers()
        if self.learned:
            optimizers, schedulers = (found, []) if self.make_scheduler is None else found
            _scale_rate(optimizers[1], schedulers[1:], self.policy_rate)
        return found

    @property
    def pretraining(self) -> bool:
        """Whether the policy does not learn yet."""
        return self.learned and self.generator_steps < self.pretrain_steps

    def losses(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return restoration loss plus policy loss; their parameters are disjoint."""
        blurred, sharp = batch["blurred"], batch["sharp"]
        walk = self.network.walk(blurred, sharp, "pretrain" if self.pretraining else None)
        total, logs = self.restoration(walk.outputs, sharp)
        for stage, sampling in walk.samplings.items():
            previous, restored = walk.outputs[stage - 1].detach(), walk.outputs[stage].detach()
            reward = stage_reward(restored, previous, sharp, self.alpha, self.baseline)
            improvement = stage_reward(restored, previous, sharp, 1.0, "improvement")
            logs |= {f"train/reward_{stage + 1}": reward.mean(), f"train/improvement_{stage + 1}": improvement.mean()}
            if sampling.actions:
                logs |= {f"train/{name}_{stage + 1}": value.float() for name, value in sampling.statistics().items()}
                control = self.network.settings["budget_control"]
                total = total + policy_loss(sampling, reward, self.credit, control, self.beta)
        if self.learned and self.pretraining:
            # DDP wants every parameter in the graph.
            total = total + sum(0 * p.sum() for p in self.network.samplers.parameters())
        return total, logs

    def evaluation_outputs(self, batch: Mapping[str, Any]) -> dict[str, list[Tensor]]:
        """Validate the top ``L``, which inference takes, and beside it a draw, which training sees."""
        walk = self.network.walk(batch["blurred"], batch["sharp"], "top")
        self.chosen = {stage: sampling.mask(min(sampling.points)).cpu() for stage, sampling in walk.samplings.items()}
        found = {"": walk.outputs}
        if self.learned:
            found["_draw"] = self.network.walk(batch["blurred"], batch["sharp"], "draw").outputs
        return found

    def panel_sample(self, batch: Mapping[str, Any], outputs: Sequence[Tensor], i: int) -> dict[str, Any]:
        """Add the points that the finest scale of each sampled stage refined."""
        return super().panel_sample(batch, outputs, i) | {"points": {k: mask[i] for k, mask in self.chosen.items()}}


def _scale_rate(optimizer: Optimizer, schedulers: Sequence[LRScheduler], ratio: float) -> None:
    # Every rate that a schedule looks at: they are kept in the optimizer's groups.
    for group in optimizer.param_groups:
        group |= {key: group[key] * ratio for key in ("lr", "initial_lr", "max_lr", "min_lr") if key in group}
    for scheduler in schedulers:
        scheduler.base_lrs = [rate * ratio for rate in scheduler.base_lrs]
