"""Control samplers and the factory of all samplers.

`uniform` and `random` ignore the image, `gradient` uses its edges, `oracle` the true error and `extent` the true blur.
All have the same budget as the learned sampler, and select the same points in training and at inference, except
`random`, which draws new points in training. `predicted_error` is defined in `sapnet.sampling.predicted_error`.
"""

import hashlib

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sapnet.errors import UserError
from sapnet.sampling.base import PatchLayout, Sampler
from sapnet.sampling.context import StageContext, pad_to_context, true_error
from sapnet.sampling.learned import LearnedSampler
from sapnet.sampling.policy import Policy
from sapnet.sampling.predicted_error import PredictedErrorSampler
from sapnet.sampling.sampled_points import SampledPoints


class UniformSampler(Sampler):
    """Selects regular points on the canvas: `[::2, ::2]` at budget 0, otherwise spread as evenly as possible."""

    def score(self, context: StageContext) -> Float[Tensor, "b h w"]:
        """Return equal scores, which are selected in the regular order."""
        return torch.zeros_like(context.blurred[:, 0])

    def _choose(
        self, context: StageContext, patches: PatchLayout, mode: str, rng: torch.Generator | None
    ) -> SampledPoints:
        score = self.score(context)
        points = {}
        for scale, stride in self.strides.items():
            # Not pooled, so that cells with some padding score like all others.
            flat = score.new_zeros(len(patches.extents), patches.height // stride, patches.width // stride)
            points[scale] = self._select(flat, patches, scale)
        return self._sampled(context, patches, points, score)


class RandomSampler(Sampler):
    """Selects distinct positions with equal probability.

    In training the random generator of the call draws them. At inference they are derived from a hash of the seed, the
    patch's size, its position in the image and the scale, so the points of an image do not depend on the other images
    of the batch or on earlier draws.
    """

    def __init__(self, *args, seed: int = 0, **settings):
        super().__init__(*args, **settings)
        self.seed = seed

    def score(self, context: StageContext) -> Float[Tensor, "b h w"]:
        """Return equal scores; the ranks are drawn at each scale."""
        return torch.zeros_like(context.blurred[:, 0])

    def _choose(
        self, context: StageContext, patches: PatchLayout, mode: str, rng: torch.Generator | None
    ) -> SampledPoints:
        score = self.score(context)
        batch, count = len(score), len(patches.extents)
        points = {}
        for scale, stride in self.strides.items():
            rows, cols = patches.height // stride, patches.width // stride
            ranks = []
            for i in range(count):
                key = f"{self.seed} {rows} {cols} {scale} {i // batch}"
                ranks.append(_ranks(rows * cols, rng if mode == "draw" else _rng_from_key(key)))
            # Double precision represents every rank exactly.
            scores = torch.stack(ranks).to(score.device, torch.float64).view(count, rows, cols)
            points[scale] = self._select(scores, patches, scale)
        return self._sampled(context, patches, points, score)


def _rng_from_key(key: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7]))


def _ranks(count: int, rng: torch.Generator | None) -> Tensor:
    return torch.randperm(count, generator=rng, device="cpu" if rng is None else rng.device)


class GradientSampler(Sampler):
    """Scores pixels by the magnitude of the luma gradient of the restored image."""

    def score(self, context: StageContext) -> Float[Tensor, "b h w"]:
        """Compute the Sobel gradient of `OP_{k-1}`, in luma per pixel."""
        weights = context.restored.new_tensor([0.299, 0.587, 0.114])
        luma = torch.einsum("bchw,c->bhw", context.restored, weights)[:, None]
        sobel_x = luma.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        kernels = torch.stack((sobel_x, sobel_x.T))[:, None]
        return F.conv2d(F.pad(luma, (1, 1, 1, 1), mode="replicate"), kernels).square().sum(dim=1).sqrt()


class OracleSampler(Sampler):
    """Scores pixels by the true error of the restored image."""

    def score(self, context: StageContext) -> Float[Tensor, "b h w"]:
        """Compute the true error `|OP_{k-1} - GT|`, mean over RGB.

        Raises:
            UserError: The ground truth is missing.
        """
        if context.sharp is None:
            raise UserError("the oracle sampler needs the sharp image: evaluate on pairs or choose another sampler.")
        return true_error(context)


class ExtentSampler(Sampler):
    """Scores pixels by the true length of their blur, which does not depend on the error of the network.

    Sharp pixels score 0 and are selected in the regular order after the blurred ones.
    """

    def score(self, context: StageContext) -> Float[Tensor, "b h w"]:
        """Return the true length of the blur in pixels.

        Raises:
            UserError: The data does not provide it.
        """
        if context.extent is None:
            raise UserError("the extent sampler needs data with the true blur, such as data=synthetic.")
        return pad_to_context(context.extent[:, 0], context)


def make_sampler(
    name: str,
    features: int = 0,
    budget: float = 0.0,
    budget_control: str = "calibrated",
    seed: int = 0,
    policy_width: int = 16,
    policy_stride: int = 1,
    policy_inputs: str = "features_and_images",
    **settings,
) -> Sampler:
    """Create a sampler by name.

    Args:
        name: `learned`, `uniform`, `random`, `gradient`, `oracle`, `extent` or `predicted_error`.
        features: Channels of `StageContext.features`, for the policy and the error predictor.
        budget: Number of points relative to a uniform grid of the same scale.
        budget_control: `calibrated` or `indicator`, for the learned sampler.
        seed: Seed of the random sampler.
        policy_width: Channels of the hidden layers of the policy, or of the error predictor.
        policy_stride: Image pixels per pixel of these layers.
        policy_inputs: Inputs of the policy or the error predictor.
        settings: `scales` and `candidates` of `Sampler`.

    Raises:
        UserError: The name is unknown, or an argument of `Policy` or `Sampler` is invalid.
    """
    policy_settings = policy_width, policy_stride, policy_inputs
    match name:
        case "learned":
            policy = Policy(features, (1 + budget) / 4, *policy_settings)
            return LearnedSampler(policy, budget_control, budget=budget, **settings)
        case "random":
            return RandomSampler(budget, seed=seed, **settings)
        case "uniform":
            return UniformSampler(budget, **settings)
        case "gradient":
            return GradientSampler(budget, **settings)
        case "oracle":
            return OracleSampler(budget, **settings)
        case "extent":
            return ExtentSampler(budget, **settings)
        case "predicted_error":
            predictor = Policy(features, 0.02, *policy_settings)
            return PredictedErrorSampler(predictor, budget=budget, **settings)
    raise UserError(
        f"sampler={name!r} is unknown: use learned, uniform, random, gradient, oracle, extent or predicted_error."
    )
