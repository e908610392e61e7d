"""A control that has to predict where the network errs, as the policy has to at test time."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.sampling.base import Sampler
from sapnet.sampling.state import State, true_error


class PredictedErrorSampler(Sampler):
    """Where a small network predicts that the image restored so far is wrong; it learns by regression, not by reward.

    It is the strongest control that sees no ground truth at inference. In training and at inference the `L` highest
    predictions of each patch are taken.

    Args:
        predictor: Takes a `State` and gives `[b, h, w]` at the image's resolution; the error is its softplus.
            `Policy(features, share=0.02)` starts at an error of 0.02.
        settings: Those of `Sampler`.
    """

    def __init__(self, predictor: nn.Module, **settings):
        super().__init__(**settings)
        self.predictor = predictor

    def score(self, state: State) -> Float[Tensor, "b h w"]:
        """Predicted mean over RGB of `|OP_{k-1} - GT|`; not negative."""
        prediction = self.predictor(state)
        return F.softplus(prediction.to(torch.promote_types(prediction.dtype, torch.float32)))

    def loss(self, state: State) -> Float[Tensor, ""]:
        """Difference between the predicted and the true error, which reaches the predictor's parameters alone.

        The mean over pixels that are no padding of the Charbonnier distance, both errors divided by the mean true error
        of the batch: 1 is a prediction that is off by about that much everywhere. Below the mean error the distance is
        close to quadratic, so that noisy errors are predicted by about their mean and not by their median.

        Raises:
            UserError: If there is no ground truth.
        """
        if state.sharp is None:
            raise UserError("the predicted_error sampler learns from the sharp image: train it on pairs.")
        height, width = state.sharp.shape[-2:]
        predicted, error = (x[:, :height, :width] for x in (self.score(state), true_error(state)))
        # An error of a thousandth of a grey level is nothing to learn from.
        difference = (predicted - error) / error.mean().clamp(min=1e-3 / 255)
        return ((1 + difference.square()).sqrt() - 1).mean()
