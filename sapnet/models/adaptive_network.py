"""`AdaptiveNetwork`: a generator with non-uniform stages and the samplers that choose its points."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.sampling.base import Sampler
from sapnet.sampling.context import StageContext
from sapnet.sampling.gates import policy_gates, unit_gates
from sapnet.sampling.plugin import ChoosePoints
from sapnet.sampling.sampled_points import SampledPoints
from sapnet.sampling.samplers import make_sampler

Points = Mapping[int, Int64[Tensor, "_ _"]]
#: Called with a stage's context and a function that restores the image of the stage from other points.
Compare = Callable[[StageContext, Callable[[Points], Tensor]], None]


@runtime_checkable
class Generator(Protocol):
    """Interface of a network whose points are chosen by an `AdaptiveNetwork`.

    A generator whose attributes `supports_gates` and `supports_comparison` are true also takes the keywords `gates` and
    `compare` of `sapnet.models.sapnet.SAPNet.forward`.
    """

    #: Indices of the non-uniform stages, from 0.
    sampled_stages: Sequence[int]
    #: Scales `r` for which points are chosen, in pixels of the whole image; a mapping if they differ between stages.
    scales: Sequence[int] | Mapping[int, Sequence[int]]
    #: Channels of `StageContext.features`.
    feature_channels: int

    def __call__(self, blurred: Tensor, choose_points: ChoosePoints) -> list[Tensor]:
        """Restore images, calling `choose_points` for the points of each non-uniform stage."""
        ...


@dataclass(frozen=True)
class Trace:
    """Record of one forward pass.

    Attributes:
        outputs: `OP_1` ... `OP_K`.
        sampled_points: The points of each sampled stage, by its index from 0.
        contexts: The inputs of the samplers, by stage.
        gates: Gates of the points' updates by stage and scale, if they were requested.
    """

    outputs: list[Float[Tensor, "b 3 h w"]]
    sampled_points: dict[int, SampledPoints]
    contexts: dict[int, StageContext]
    gates: dict[int, dict[int, Tensor]]


class AdaptiveNetwork(nn.Module):
    """Generator and samplers, one sampler for each non-uniform stage.

    Args:
        generator: The network without the policy.
        sampler: `learned` (the policy), or one of the controls `uniform`, `random`, `gradient`, `oracle`, `extent` and
            `predicted_error`.
        budget: `b`: number of points relative to a uniform grid of the same scale, such as 0.1 for NU+10%.
        budget_control: `calibrated` or `indicator`, for the learned sampler.
        candidates: `canvas` or `full`, equal to that of the generator.
        seed: Seed of the random sampler.
        policy_width: Channels of the hidden layers of the policy, or of the error predictor.
        policy_stride: Image pixels per pixel of these layers.
        inference: `top` or `dither`: how the learned sampler selects points in evaluation mode.
        policy_inputs: Inputs of the policy or the error predictor: `features_and_images` or `features`.

    Raises:
        UserError: The generator was built for other candidates, or the sampler, the budget or the inference mode is
            invalid.
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
        generator_candidates = getattr(generator, "candidates", "canvas")
        if candidates != generator_candidates:
            raise UserError(
                f"sampling.candidates={candidates}: this network was built with candidates={generator_candidates};"
                f" set network.candidates={candidates} if the network supports it."
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
        """Replace the samplers; `learned` and `predicted_error` start untrained.

        Raises:
            UserError: The sampler is unknown, the budget or the inference mode is invalid, or the network has no
                sampled stage.
        """
        inference = self.inference if inference is None else inference
        _check_inference(inference, sampler)
        self.sampler, self.budget, self.inference = sampler, self.budget if budget is None else budget, inference
        settings = {"budget": self.budget, **self.settings}
        stages = getattr(self.generator, "sampled_stages", ())
        if not stages:
            raise UserError(
                f"{type(self.generator).__name__} has no sampled stages here: use sampling=uniform_network with it."
            )
        scales = cast(Generator, self.generator).scales
        scales_by_stage = scales if isinstance(scales, Mapping) else dict.fromkeys(stages, scales)
        features = cast(Generator, self.generator).feature_channels
        samplers = {str(k): make_sampler(sampler, features, scales=scales_by_stage[k], **settings) for k in stages}
        self.samplers = nn.ModuleDict(samplers).train(self.training)

    @property
    def sampled_stages(self) -> Sequence[int]:
        """Indices of the generator's non-uniform stages, from 0."""
        return cast(Generator, self.generator).sampled_stages

    def sampler_of(self, stage: int) -> Sampler:
        """Return the sampler of a stage, counted from 0."""
        return cast(Sampler, self.samplers[str(stage)])

    def use_budget(self, budget: float) -> None:
        """Change the budget without changing the weights.

        Raises:
            UserError: The budget is invalid.
        """
        for stage in self.samplers:
            self.sampler_of(int(stage)).use_budget(budget)
        self.budget = budget

    def use_inference(self, inference: str) -> None:
        """Change how points are selected from the map in evaluation mode.

        Args:
            inference: `top`: the `L` highest values of each patch; `dither`: `L` points whose density follows the map.

        Raises:
            UserError: The mode is unknown, or `dither` is used with a control, whose scores are not probabilities.
        """
        _check_inference(inference, self.sampler)
        self.inference = inference

    def use_window(self, window: int | None) -> None:
        """Call `use_window` on the generator; points are then also chosen for each window separately."""
        use_window(self.generator, window)

    def trace(
        self,
        blurred: Float[Tensor, "b 3 h w"],
        sharp: Float[Tensor, "b 3 h w"] | None = None,
        mode: str | None = None,
        rng: torch.Generator | None = None,
        extent: Float[Tensor, "b 1 h w"] | None = None,
        gates: Literal["unit", "policy"] | None = None,
        compare: Compare | None = None,
        stages: tuple[int, int] | None = None,
    ) -> Trace:
        """Restore images and record the sampled points.

        Args:
            blurred: RGB in [0, 1].
            sharp: The ground truth, used by the oracle only.
            mode: `top`, `dither`, `draw` or `pretrain`. Default: `draw` in training mode and `inference` otherwise.
            rng: Random generator of the draws.
            extent: True length of the blur in pixels, used by the extent sampler only.
            gates: Gates of the points' updates (`sapnet.sampling.gates`): `unit` to read their gradients after the
                backward pass, or `policy` to propagate the loss to the policy.
            compare: Called at each sampled stage with its context and a function that restores the image of the stage
                from other points, without gradients.
            stages: First stage with gradients and end of the range of stages to run, from 0; None: all stages. Points
                of earlier stages are selected as at inference.

        Raises:
            UserError: An input of the sampler is missing.
        """
        trace = Trace([], {}, {}, {})

        def has_fixed_points(context: StageContext) -> bool:
            return stages is not None and context.stage < stages[0]

        def choose_points(context: StageContext) -> Points:
            trace.contexts[context.stage] = replace(context, sharp=sharp, extent=extent)
            stage_mode = self.inference if has_fixed_points(context) else mode
            sampled = self.choose_points(trace.contexts[context.stage], stage_mode, rng)
            trace.sampled_points[context.stage] = sampled
            return sampled.points

        def make_gates(context: StageContext, points: Points) -> dict[int, Tensor]:
            if has_fixed_points(context):
                return {}
            sampled = trace.sampled_points[context.stage]
            stage_gates = unit_gates(points, blurred.dtype) if gates == "unit" else policy_gates(sampled)
            trace.gates[context.stage] = stage_gates
            return stage_gates

        extras: dict[str, Any] = {} if gates is None else {"gates": make_gates}
        if compare is not None:

            def compare_stage(context: StageContext, restore: Callable[[Points], Tensor]) -> None:
                if not has_fixed_points(context):
                    compare(trace.contexts[context.stage], restore)

            extras["compare"] = compare_stage
        if stages is not None:
            extras["stages"] = stages
        trace.outputs.extend(self.generator(blurred, choose_points, **extras))
        return trace

    def choose_points(
        self, context: StageContext, mode: str | None = None, rng: torch.Generator | None = None
    ) -> SampledPoints:
        """Choose the points of one stage, with `mode` and `rng` as in `trace`."""
        mode = mode or ("draw" if self.training else self.inference)
        return self.sampler_of(context.stage)(context, mode, rng)

    def forward(
        self,
        blurred: Float[Tensor, "b 3 h w"],
        sharp: Float[Tensor, "b 3 h w"] | None = None,
        extent: Float[Tensor, "b 1 h w"] | None = None,
    ) -> list[Float[Tensor, "b 3 h w"]]:
        """Return `OP_1` ... `OP_K`."""
        return self.trace(blurred, sharp, extent=extent).outputs


def _check_inference(inference: str, sampler: str) -> None:
    if inference not in ("top", "dither"):
        raise UserError(f"sampling.inference={inference!r} is unknown: use top or dither.")
    if inference == "dither" and sampler != "learned":
        raise UserError(
            f"sampling.inference=dither needs the probabilities of sampler=learned, which sampler={sampler} does not"
            " have: use sampling.inference=top."
        )


def use_window(network: nn.Module, window: int | None) -> None:
    """Limit the global operations of a network to windows of an image at inference (`SAPNet.use_window`).

    Args:
        network: Any network.
        window: Side of the window in pixels; None, which every network accepts: no limit.

    Raises:
        UserError: The network has no global operations, or does not support this window.
    """
    limit = getattr(network, "use_window", None)
    if limit is not None:
        limit(window)
    elif window is not None:
        raise UserError(
            f"window={window}: {type(network).__name__} has no attention over the image that could be limited;"
            " remove this setting."
        )
