"""A generator with non-uniform stages joined to the samplers that choose its points."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.sampling.base import Sampler
from sapnet.sampling.gates import policy_gates, unit_gates
from sapnet.sampling.result import Sampling
from sapnet.sampling.samplers import make_sampler
from sapnet.sampling.state import State

#: Called with a stage's state and a function that restores the stage's image from other points.
Compare = Callable[[State, Callable[[Mapping[int, Tensor]], Tensor]], None]


class Generator(Protocol):
    """What a network must offer to have its points chosen.

    With the attributes `takes_gates` and `compares` it also takes the keywords `gates` and `compare` of
    `sapnet.models.sapnet.SAPNet.forward`.
    """

    #: Indices of the non-uniform stages, from 0.
    sampled_stages: Sequence[int]
    #: The ``r`` for which points are chosen, in pixels of the whole image; where stages differ, by the stage.
    scales: Sequence[int] | Mapping[int, Sequence[int]]
    #: Channels of ``State.features``.
    feature_channels: int

    def __call__(self, blurred: Tensor, choose) -> list[Tensor]:
        """Restore, asking ``choose(State)`` for the points of each non-uniform stage."""
        ...


@dataclass(frozen=True)
class Walk:
    """One pass through the network.

    Attributes:
        outputs: ``OP_1`` ... ``OP_K``.
        samplings: What was sampled, by the index of the stage from 0.
        states: What was known when it was chosen, likewise.
        gates: Factors of the points' updates by stage and scale, where they were asked for.
    """

    outputs: list[Float[Tensor, "b 3 h w"]]
    samplings: dict[int, Sampling]
    states: dict[int, State]
    gates: dict[int, dict[int, Tensor]]


class AdaptiveNetwork(nn.Module):
    """Generator and samplers, one sampler per non-uniform stage.

    Args:
        generator: Everything that is not the policy.
        sampler: ``learned`` (the policy), or one of the controls ``uniform``, ``random``, ``gradient``, ``oracle``,
            ``extent``, ``predicted_error``.
        budget: ``b``: points relative to a uniform grid of the same scale, 0.1 for NU+10%.
        budget_control: ``calibrated`` or ``indicator``, of the learned sampler.
        candidates: ``canvas`` or ``full``, as the generator was built.
        seed: Of the random sampler.
        policy_width: Channels of the policy's hidden layers, and of those that predict the error.
        policy_stride: Image pixels per pixel of these layers.
        policy_inputs: What they read: ``features_and_images`` or ``features``.
        inference: ``top`` or ``dither``: how the learned sampler's points follow its map in evaluation mode.

    Raises:
        UserError: The generator was built for other candidates, or the sampler, the budget or the inference are
            impossible.
    """

    def __init__(
        self,
        generator: nn.Module,
        sampler: str = "learned",
        budget: float = 0.0,
        budget_control: str = "calibrated",
        candidates: str = "canvas",
        seed: int = 0,
        policy_width: int = 16,
        policy_stride: int = 1,
        inference: str = "top",
        policy_inputs: str = "features_and_images",
    ):
        super().__init__()
        built_for = getattr(generator, "candidates", "canvas")
        if candidates != built_for:
            raise UserError(
                f"sampling.candidates={candidates}: this network's points lie on candidates={built_for};"
                f" build it with network.candidates={candidates}, if it has that."
            )
        self.generator = generator
        self.settings: dict[str, Any] = {
            "budget_control": budget_control,
            "candidates": candidates,
            "seed": seed,
            "policy_width": policy_width,
            "policy_stride": policy_stride,
            "policy_inputs": policy_inputs,
        }
        self.use_sampler(sampler, budget, inference)

    def use_sampler(self, sampler: str, budget: float | None = None, inference: str | None = None) -> None:
        """Choose points by another sampler from now on; `learned` and `predicted_error` start untrained.

        Raises:
            UserError: Unknown sampler, impossible budget or inference, or no stage of the network samples.
        """
        inference = self.inference if inference is None else inference
        _check_inference(inference, sampler)
        self.sampler, self.budget, self.inference = sampler, self.budget if budget is None else budget, inference
        settings = {"budget": self.budget, **self.settings}
        stages = getattr(self.generator, "sampled_stages", ())
        if not stages:
            raise UserError(
                f"this {type(self.generator).__name__} has no stage that samples: use sampling=uniform_network with it."
            )
        scales = cast(Generator, self.generator).scales
        by_stage = scales if isinstance(scales, Mapping) else dict.fromkeys(stages, scales)
        features = cast(Generator, self.generator).feature_channels
        samplers = {str(k): make_sampler(sampler, features, scales=by_stage[k], **settings) for k in stages}
        self.samplers = nn.ModuleDict(samplers).train(self.training)

    @property
    def sampled_stages(self) -> Sequence[int]:
        """Indices of the generator's non-uniform stages, from 0."""
        return cast(Generator, self.generator).sampled_stages

    def sampler_of(self, stage: int) -> Sampler:
        """Return the sampler of a stage, counted from 0."""
        return cast(Sampler, self.samplers[str(stage)])

    def use_budget(self, budget: float) -> None:
        """Spend another budget from now on, with the same trained weights.

        Raises:
            UserError: The budget is impossible.
        """
        for stage in self.samplers:
            self.sampler_of(int(stage)).use_budget(budget)
        self.budget = budget

    def use_inference(self, inference: str) -> None:
        """Choose points in evaluation mode another way from now on, from the same map.

        Args:
            inference: ``top``: the ``L`` highest of each patch; ``dither``: ``L`` points whose density follows the map.

        Raises:
            UserError: Unknown, or ``dither`` with a control, whose scores are no probabilities.
        """
        _check_inference(inference, self.sampler)
        self.inference = inference

    def use_window(self, window: int | None) -> None:
        """As :func:`use_window`, of this network's generator; the points are then chosen by window too."""
        use_window(self.generator, window)

    def walk(
        self,
        blurred: Float[Tensor, "b 3 h w"],
        sharp: Float[Tensor, "b 3 h w"] | None = None,
        mode: str | None = None,
        generator: torch.Generator | None = None,
        extent: Float[Tensor, "b 1 h w"] | None = None,
        gates: Literal["unit", "policy"] | None = None,
        compare: Compare | None = None,
        stages: tuple[int, int] | None = None,
    ) -> Walk:
        """Restore, and remember what was sampled.

        Args:
            blurred: RGB in [0, 1].
            sharp: The ground truth, which only the oracle looks at.
            mode: ``top``, ``dither``, ``draw`` or ``pretrain``; by default ``draw`` while training, else `inference`.
            generator: Makes the draws.
            extent: The true blur extent in pixels, which only the extent sampler looks at.
            gates: Of the points' updates: ``unit``, whose gradients can be read afterwards, or ``policy``, through
                which the loss reaches the policy (`sapnet.sampling.gates`).
            compare: Called at each sampled stage with its state and a function that restores its image from other
                points, without gradients.
            stages: First stage that gets gradients, and the one after the last that runs, from 0; None: all. Points of
                stages before the first are those of inference.

        Raises:
            UserError: The sampler needs what is not given.
        """
        walk = Walk([], {}, {}, {})

        def fixed(state: State) -> bool:
            return stages is not None and state.stage < stages[0]

        def choose(state: State):
            walk.states[state.stage] = replace(state, sharp=sharp, extent=extent)
            chosen_mode = self.inference if fixed(state) else mode
            walk.samplings[state.stage] = self.choose(walk.states[state.stage], chosen_mode, generator)
            return walk.samplings[state.stage].points

        def gate(state: State, points: Mapping[int, Tensor]):
            if fixed(state):
                return {}
            unit = gates == "unit"
            found = unit_gates(points, blurred.dtype) if unit else policy_gates(walk.samplings[state.stage])
            walk.gates[state.stage] = found
            return found

        extras: dict[str, Any] = {} if gates is None else {"gates": gate}
        if compare is not None:

            def compare_learning(state: State, restore: Callable):
                if not fixed(state):
                    compare(walk.states[state.stage], restore)

            extras["compare"] = compare_learning
        if stages is not None:
            extras["stages"] = stages
        walk.outputs.extend(self.generator(blurred, choose, **extras))
        return walk

    def choose(self, state: State, mode: str | None = None, generator: torch.Generator | None = None) -> Sampling:
        """Choose the points of one stage, as `walk` does."""
        mode = mode or ("draw" if self.training else self.inference)
        return self.sampler_of(state.stage)(state, mode, generator)

    def forward(
        self,
        blurred: Float[Tensor, "b 3 h w"],
        sharp: Float[Tensor, "b 3 h w"] | None = None,
        extent: Float[Tensor, "b 1 h w"] | None = None,
    ) -> list[Float[Tensor, "b 3 h w"]]:
        """Return ``OP_1`` ... ``OP_K``."""
        return self.walk(blurred, sharp, extent=extent).outputs


def _check_inference(inference: str, sampler: str) -> None:
    if inference not in ("top", "dither"):
        raise UserError(f"sampling.inference={inference!r} is unknown: use top or dither.")
    if inference == "dither" and sampler != "learned":
        raise UserError(
            f"sampling.inference=dither needs the probabilities of sampler=learned, which sampler={sampler} has not:"
            " use sampling.inference=top."
        )


def use_window(network: nn.Module, window: int | None) -> None:
    """Let a network's global operations see windows of an image at inference from now on (`SAPNet.use_window`).

    Raises:
        UserError: The network cannot, or not with this window; None is taken by every network.
    """
    limit = getattr(network, "use_window", None)
    if limit is not None:
        limit(window)
    elif window is not None:
        raise UserError(
            f"window={window}: {type(network).__name__} has no attention over the image, so there is nothing to limit;"
            " leave it out."
        )
