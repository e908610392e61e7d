"""Joint training of generator and policy: two optimizers, one backward pass (Sec. 3.1.1)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn

from sapnet.models.adaptive_network import AdaptiveNetwork, Trace
from sapnet.sampling.context import StageContext
from sapnet.sampling.learned import LearnedSampler
from sapnet.training.phases import Phase
from sapnet.training.policy_gradient import PolicySettings, policy_loss
from sapnet.training.restoration import RestorationModule
from sapnet.training.reward import stage_reward
from sapnet.training.warm_start import imitation_loss

GENERATOR, POLICY = 0, 1


class AdaptiveModule(RestorationModule):
    """Trains an adaptive network: the generator by its loss, the policy by the policy gradient.

    While the generator is pre-trained alone, points are drawn uniformly at random and the policy's optimizer and
    schedule stand still. With a warm start the policy imitates the error instead, and points are drawn from it. Then
    both learn together, until the policy settles: it is fixed, and the generator learns from the points of inference.
    A control sampler has no policy: it chooses from the first step on. One with parameters, `predicted_error`, has the
    second optimizer from the first step on.

    Args:
        settings: Those of :class:`RestorationModule`.
        policy: How the policy learns.
        more: Further settings of :class:`RestorationModule`.

    Raises:
        UserError: The settings do not go together, or with this network.
    """

    network: AdaptiveNetwork

    def __init__(self, *settings: Any, policy: PolicySettings | None = None, **more: Any):
        super().__init__(*settings, **more)
        self.policy = policy or PolicySettings()
        self.learned = self.network.sampler == "learned"
        if self.learned:
            self.policy.check(self.network)

    @property
    def pretraining(self) -> bool:
        """Whether the policy gradient has not begun in this phase."""
        return self.learned and self.generator_steps < self.phase.begin + self._waiting(self.phase)

    @property
    def imitating(self) -> bool:
        """Whether the policy imitates the error."""
        return self.pretraining and self.policy.warm_start == "error"

    @property
    def settled(self) -> bool:
        """Whether the policy is fixed until the end of this phase."""
        return self.learned and 0 < self._settled(self.phase) >= self.phase.end - self.generator_steps

    def _waiting(self, phase: Phase) -> int:
        return round(self.policy.pretrain * phase.steps)

    def _settled(self, phase: Phase) -> int:
        return round(self.policy.settle * phase.steps)

    def _samples(self, phase: Phase) -> bool:
        stages = self.network.sampled_stages
        return phase.stages is None or any(k in stages for k in range(*phase.stages))

    def parameter_groups(self) -> list[list[nn.Parameter]]:
        """Return the generator's parameters and, if the samplers have any, theirs."""
        groups = [list(part.parameters()) for part in (self.network.generator, self.network.samplers)]
        return [group for group in groups if group]

    def relative_rate(self, number: int) -> float:
        """Return the policy's own rate."""
        return self.policy.rate if number == POLICY else 1.0

    def optimizer_steps(self, number: int) -> list[int]:
        """Return the steps in each phase; the policy's begin when it joins, and end when it settles."""
        if number == GENERATOR or not self.learned:
            return super().optimizer_steps(number)
        phases = [phase for phase in self.phases if self._samples(phase)]
        waits = self.policy.warm_start == "none"
        return [p.steps - self._settled(p) - (self._waiting(p) if waits else 0) for p in phases]

    def steps_taken(self, number: int) -> int:
        """Return how many steps an optimizer has taken: see `steps_now`."""
        if number == GENERATOR:
            return super().steps_taken(number)
        taken = 0
        for phase in filter(self._samples, self.phases):
            begin, end = phase.begin, phase.end
            if self.learned:
                begin += self._waiting(phase) if self.policy.warm_start == "none" else 0
                end -= self._settled(phase)
            taken += max(0, min(self.generator_steps, end) - begin)
        return taken

    def steps_now(self, number: int) -> bool:
        """Return whether an optimizer takes part: the policy's not before it joins."""
        waits = self.pretraining and not self.imitating
        return number == GENERATOR or (self._samples(self.phase) and not (waits or self.settled))

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Take one step; where a warm start ends, Adam forgets the scale of the imitation's gradients."""
        switch = self.generator_steps - self.phase.begin == self._waiting(self.phase) > 0
        if self.learned and switch and self.policy.warm_start == "error":
            optimizers = cast("list[LightningOptimizer]", self.optimizers())
            optimizers[POLICY].optimizer.state.clear()
        return super().training_step(batch, batch_idx)

    def losses(self, batch: Mapping[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return restoration loss plus the loss of the samplers; their parameters are disjoint."""
        walk, second = self._walk(batch)
        total, logs = self.restoration(walk.outputs, batch["sharp"])
        for stage, sampling in walk.sampled_points.items():
            if self.phase.stages is not None and stage < self.phase.stages[0]:
                continue
            previous, restored = _before(walk, stage), walk.outputs[stage].detach()
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
                before = second.get(stage, previous)
                reward = stage_reward(restored, before, batch["sharp"], self.policy.alpha, self.policy.reward)
                logs[f"train/reward_{stage + 1}"] = reward.mean()
                control = self.network.settings["budget_control"]
                total = total + policy_loss(sampling, reward, self.policy.credit, control, self.policy.beta)
        if self.phase.stages is None and (self.pretraining or self.settled):
            # DDP wants every parameter in the graph.
            total = total + sum(0 * p.sum() for p in self.network.samplers.parameters())
        return total, logs

    def _walk(self, batch: Mapping[str, Any]) -> tuple[Trace, dict[int, Tensor]]:
        # The second draw of each stage's points, whose image is the baseline of the first draw's reward.
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

    def evaluation_outputs(self, batch: Mapping[str, Any]) -> dict[str, list[Tensor]]:
        """Validate the top ``L``, which inference takes, and beside it a draw, which training sees."""
        known = {"sharp": batch["sharp"], "extent": batch.get("extent")}
        walk = self.network.trace(batch["blurred"], mode="top", **known)
        self.chosen = {
            stage: sampling.mask(min(sampling.points)).cpu() for stage, sampling in walk.sampled_points.items()
        }
        found = {"": walk.outputs}
        if self.learned:
            found["_draw"] = self.network.trace(batch["blurred"], mode="draw", **known).outputs
        return found

    def panel_sample(self, batch: Mapping[str, Any], outputs: Sequence[Tensor], i: int) -> dict[str, Any]:
        """Add the points that the finest scale of each sampled stage refined."""
        return super().panel_sample(batch, outputs, i) | {"points": {k: mask[i] for k, mask in self.chosen.items()}}


def _before(walk: Trace, stage: int) -> Tensor:
    # OP_{k-1}: the blurred image where the first stage samples.
    height, width = walk.outputs[stage].shape[-2:]
    return walk.contexts[stage].restored[..., :height, :width].detach()
