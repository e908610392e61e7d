"""The control samplers, and all samplers by name.

`uniform` and `random` ignore the image, `gradient` reads its edges, `oracle` the true error, `extent` the true blur;
all spend the budget that the learned sampler spends. They take the same points in training as at inference, except
`random`, which draws anew. The control `predicted_error` has a file of its own.
"""

import hashlib

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sapnet.errors import UserError
from sapnet.sampling.base import Patches, Sampler
from sapnet.sampling.learned import LearnedSampler
from sapnet.sampling.policy import Inputs, Policy
from sapnet.sampling.predicted_error import PredictedErrorSampler
from sapnet.sampling.result import Sampling
from sapnet.sampling.state import State, pad_to_state, true_error


class UniformSampler(Sampler):
    """Regular points on the canvas: `[::2, ::2]` at budget 0, else as evenly spread as their number allows."""

    def score(self, state: State) -> Float[Tensor, "b h w"]:
        """Every pixel alike; equal scores are taken in the regular order."""
        return torch.zeros_like(state.blurred[:, 0])

    def _choose(self, state: State, patches: Patches, mode: str, generator) -> Sampling:
        score = self.score(state)
        points = {}
        for scale, stride in self.strides.items():
            # Not pooled: cells that hold some padding count like all others.
            flat = score.new_zeros(len(patches.extents), patches.height // stride, patches.width // stride)
            points[scale] = self._take(flat, patches, scale)
        return self._answer(state, patches, points, score)


class RandomSampler(Sampler):
    """Distinct positions, each as likely as any other.

    In training they come from the generator. At inference they are a hash of the seed, the patch's size, its place in
    the image and the scale, so that no image's points depend on its neighbours in the batch or on earlier draws.
    """

    def __init__(self, *args, seed: int = 0, **settings):
        super().__init__(*args, **settings)
        self.seed = seed

    def score(self, state: State) -> Float[Tensor, "b h w"]:
        """Every pixel alike."""
        return torch.zeros_like(state.blurred[:, 0])

    def _choose(self, state: State, patches: Patches, mode: str, generator) -> Sampling:
        score = self.score(state)
        batch, number = len(score), len(patches.extents)
        points = {}
        for scale, stride in self.strides.items():
            rows, cols = patches.height // stride, patches.width // stride
            ranks = []
            for i in range(number):
                words = f"{self.seed} {rows} {cols} {scale} {i // batch}"
                ranks.append(_ranks(rows * cols, generator if mode == "draw" else _hashed(words)))
            # Double precision holds every rank of any image.
            scores = torch.stack(ranks).to(score.device, torch.float64).view(number, rows, cols)
            points[scale] = self._take(scores, patches, scale)
        return self._answer(state, patches, points, score)


def _hashed(words: str) -> torch.Generator:
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(words.encode()).digest()[:7]))


def _ranks(number: int, generator: torch.Generator | None) -> Tensor:
    return torch.randperm(number, generator=generator, device="cpu" if generator is None else generator.device)


class GradientSampler(Sampler):
    """Where the image restored so far has edges: the magnitude of its luma's gradient."""

    def score(self, state: State) -> Float[Tensor, "b h w"]:
        """Sobel gradient of `OP_{k-1}`, in luma per pixel."""
        weights = state.restored.new_tensor([0.299, 0.587, 0.114])
        luma = torch.einsum("bchw,c->bhw", state.restored, weights)[:, None]
        across = luma.new_tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        kernels = torch.stack((across, across.T))[:, None]
        return F.conv2d(F.pad(luma, (1, 1, 1, 1), mode="replicate"), kernels).square().sum(dim=1).sqrt()


class OracleSampler(Sampler):
    """Where the image restored so far is truly wrong: the most that the state could tell of a pixel's difficulty."""

    def score(self, state: State) -> Float[Tensor, "b h w"]:
        """True error `|OP_{k-1} - GT|`, mean over RGB.

        Raises:
            UserError: If there is no ground truth.
        """
        if state.sharp is None:
            raise UserError("the oracle sampler needs the sharp image: evaluate on pairs or choose another sampler.")
        return true_error(state)


class ExtentSampler(Sampler):
    """Where the image is truly blurred, and how far: the place of the blur, without the error that the network left.

    Where nothing is blurred all pixels score 0 and are taken in the regular order, after those that are blurred.
    """

    def score(self, state: State) -> Float[Tensor, "b h w"]:
        """True length of the blur in pixels.

        Raises:
            UserError: If the data does not know it.
        """
        if state.extent is None:
            raise UserError("the extent sampler needs data that knows the true blur, such as data=synthetic.")
        return pad_to_state(state.extent[:, 0], state)


def make_sampler(
    name: str,
    features: int = 0,
    budget: float = 0.0,
    budget_control: str = "calibrated",
    seed: int = 0,
    policy_width: int = 16,
    policy_stride: int = 1,
    policy_inputs: Inputs = "features_and_images",
    **settings,
) -> Sampler:
    """A sampler by its name: `learned`, `uniform`, `random`, `gradient`, `oracle`, `extent` or `predicted_error`.

    Args:
        name: One of these.
        features: Channels of `State.features`, for the policy and the predictor of the error.
        budget: Points relative to a uniform grid of the same scale.
        budget_control: The learned sampler's.
        seed: The random sampler's.
        policy_width: Channels of the policy, or of the predictor of the error.
        policy_stride: Image pixels per pixel of its hidden layers.
        policy_inputs: What it reads.
        settings: `scales` and `candidates` of `Sampler`.

    Raises:
        UserError: If the name is none of these, or as `Policy`.
    """
    settings_of_policy = policy_width, policy_stride, policy_inputs
    match name:
        case "learned":
            policy = Policy(features, (1 + budget) / 4, *settings_of_policy)
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
            predictor = Policy(features, 0.02, *settings_of_policy)
            return PredictedErrorSampler(predictor, budget=budget, **settings)
    raise UserError(
        f"sampler={name!r} is unknown: use learned, uniform, random, gradient, oracle, extent or predicted_error."
    )
