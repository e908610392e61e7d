"""Lightning module that trains generator and policy together, with two optimizers (Sec. 3.1.1)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from sapnet.models.adaptive_network import AdaptiveNetwork, Trace
from sapnet.sampling.context import StageContext
from sapnet.sampling.learned import LearnedSampler
from sapnet.training.phases import Phase
from sapnet.training.policy_gradient import PolicySettings, policy_loss
from sapnet.training.restoration_module import RestorationModule
from sapnet.training.reward import stage_reward
from sapnet.training.warm_start import imitation_loss

GENERATOR, POLICY = 0, 1


class PolicyGradientModule(RestorationModule):
    """Lightning module of a network with samplers: the policy gradient trains the policy, the loss the generator.

    A training with the learned sampler has three parts:

    1. Pre-training: the generator learns with points drawn uniformly at random, and the policy does not learn. With a
       warm start the policy learns to predict the error, and points are drawn from the policy.
    2. Joint training of generator and policy.
    3. Settled policy: the policy is fixed, and the generator learns with the points of inference.

    The other samplers have no policy and choose points from the first step. The sampler `predicted_error` has
    parameters and uses the second optimizer from the first step.

    Args:
        args: Arguments of `RestorationModule`.
        policy: Settings of the policy gradient.
        kwargs: Keyword arguments of `RestorationModule`.

    Raises:
        UserError: The settings contradict each other or do not suit the network.
    """

    samples = True
    network: AdaptiveNetwork

    def __init__(self, *args: Any, policy: PolicySettings | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.policy = policy or PolicySettings()
        self.learned = self.network.sampler == "learned"
        if self.learned:
            self.policy.check(self.network)

    @property
    def pretraining(self) -> bool:
        """Whether the policy gradient has not started in this phase."""
        return self.learned and self.generator_steps < self.phase.begin + self._pretraining_steps(self.phase)

    @property
    def imitating(self) -> bool:
        """Whether the policy is in its warm start, where it learns to predict the error."""
        return self.pretraining and self.policy.warm_start == "error"

    @property
    def settled(self) -> bool:
        """Whether the policy is fixed until the end of this phase."""
        return self.learned and 0 < self._settled_steps(self.phase) >= self.phase.end - self.generator_steps

    def _pretraining_steps(self, phase: Phase) -> int:
        return round(self.policy.pretrain * phase.steps)

    def _settled_steps(self, phase: Phase) -> int:
        return round(self.policy.settle * phase.steps)

    def _has_sampled_stage(self, phase: Phase) -> bool:
        stages = self.network.sampled_stages
        return phase.stages is None or any(k in stages for k in range(*phase.stages))

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Return the parameters of the generator and, if there are any, those of the samplers."""
        groups = [list(part.parameters()) for part in (self.network.generator, self.network.samplers)]
        return [group for group in groups if group]

    def relative_rate(self, number: int) -> float:
        return self.policy.rate if number == POLICY else 1.0

    def optimizer_steps(self, number: int) -> list[int]:
        """Return the number of steps of an optimizer in each phase; the policy learns only in a part of a phase."""
        if number == GENERATOR or not self.learned:
            return super().optimizer_steps(number)
        phases = [phase for phase in self.phases if self._has_sampled_stage(phase)]
        waits = self.policy.warm_start == "none"
        return [p.steps - self._settled_steps(p) - (self._pretraining_steps(p) if waits else 0) for p in phases]

    def steps_taken(self, number: int) -> int:
        if number == GENERATOR:
            return super().steps_taken(number)
        taken = 0
        for phase in filter(self._has_sampled_stage, self.phases):
            begin, end = phase.begin, phase.end
            if self.learned:
                begin += self._pretraining_steps(phase) if self.policy.warm_start == "none" else 0
                end -= self._settled_steps(phase)
            taken += max(0, min(self.generator_steps, end) - begin)
        return taken

    def is_active(self, number: int) -> bool:
        waits = self.pretraining and not self.imitating
        return number == GENERATOR or (self._has_sampled_stage(self.phase) and not (waits or self.settled))

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Take one step. At the end of a warm start, reset the policy's optimizer."""
        # Adam's moments have the scale of the gradients of the imitation loss.
        warm_start_ends = self.generator_steps - self.phase.begin == self._pretraining_steps(self.phase) > 0
        if self.learned and warm_start_ends and self.policy.warm_start == "error":
            optimizers = cast("list[LightningOptimizer]", self.optimizers())
            optimizers[POLICY].optimizer.state.clear()
        return super().training_step(batch, batch_idx)

    def losses(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of the restoration loss and the losses of the samplers, whose parameters are disjoint."""
        walk, second = self._walk(batch)
        total, logs = self.restoration_loss(walk.outputs, batch["sharp"])
        for stage, sampling in walk.sampled_points.items():
            if self.phase.stages is not None and stage < self.phase.stages[0]:
                continue
            previous, restored = _previous_output(walk, stage), walk.outputs[stage].detach()
            improvement = stage_reward(restored, previous, batch["sharp"], 1.0, "improvement")
            logs[f"train/improvement_{stage + 1}"] = improvement.mean()
            sampler = self.network.sampler_of(stage)
            loss = getattr(sampler, "loss", None)
            if loss is not None:
                total = total + loss(walk.contexts[stage])
            if self.imitating:
                learned = cast(LearnedSampler, sampler)
                imitation = imitation_loss(learned, walk.contexts[stage], self.policy.warm_start_window)
                logs[f"train/imitation_{stage + 1}"] = imitation.detach()
                total = total + imitation
            if not sampling.actions:
                continue
            logs |= {f"train/{name}_{stage + 1}": value.float() for name, value in sampling.statistics().items()}
            if self.policy.estimator == "reinforce" and not self.pretraining:
                baseline = second.get(stage, previous)
                reward = stage_reward(restored, baseline, batch["sharp"], self.policy.alpha, self.policy.reward)
                logs[f"train/reward_{stage + 1}"] = reward.mean()
                control = self.network.settings["budget_control"]
                total = total + policy_loss(sampling, reward, self.policy.credit, control, self.policy.beta)
        if self.phase.stages is None and (self.pretraining or self.settled):
            # DDP needs every parameter in the graph.
            total = total + sum(0 * p.sum() for p in self.network.samplers.parameters())
        return total, logs

    def _walk(self, batch: Mapping[str, Any]) -> tuple[Trace, dict[int, Tensor]]:
        # Images restored from a second draw of points: the baseline of the reward of the first draw.
        second: dict[int, Tensor] = {}

        def compare(state: StageContext, restore: Callable) -> None:
            second[state.stage] = restore(self.network.choose_points(state, "draw").points)

        drawing = self.learned and not self.pretraining and not self.settled
        mode = "top" if self.settled else "pretrain" if self.pretraining and not self.imitating else None
        return (
            self.network.trace(
                batch["blurred"],
                batch["sharp"],
                mode,
                extent=batch.get("extent"),
                gates="policy" if drawing and self.policy.estimator == "gate" else None,
                compare=compare if drawing and self.policy.baseline == "paired" else None,
                stages=self.phase.stages,
            ),
            second,
        )

    def restored(self, batch: Mapping[str, Any]) -> list[Tensor]:
        return self.network.trace(batch["blurred"], mode="top", **_truth(batch)).outputs

    def evaluation_outputs(self, batch: Mapping[str, Any]) -> dict[str, list[Tensor]]:
        """Validate with the top `L` points, as in inference, and also with drawn points, as in training."""
        truth = _truth(batch)
        walk = self.network.trace(batch["blurred"], mode="top", **truth)
        self.masks = {
            stage: sampling.mask(min(sampling.points)).cpu() for stage, sampling in walk.sampled_points.items()
        }
        outputs = {"": walk.outputs}
        if self.learned:
            outputs["_draw"] = self.network.trace(batch["blurred"], mode="draw", **truth).outputs
        return outputs

    def panel_sample(self, batch: Mapping[str, Any], outputs: Sequence[Tensor], i: int) -> dict[str, Any]:
        """Add the points of the finest scale of each sampled stage."""
        return super().panel_sample(batch, outputs, i) | {"points": {k: mask[i] for k, mask in self.masks.items()}}


def _truth(batch: Mapping[str, Any]) -> dict[str, Any]:
    return {"sharp": batch["sharp"], "extent": batch.get("extent")}


def _previous_output(walk: Trace, stage: int) -> Tensor:
    # OP_{k-1}; for the first stage the blurred image.
    height, width = walk.outputs[stage].shape[-2:]
    return walk.contexts[stage].restored[..., :height, :width].detach()
