"""A control sampler that predicts the error of the restored image."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.sampling.base import Sampler
from sapnet.sampling.context import StageContext, true_error


class PredictedErrorSampler(Sampler):
    """Scores pixels by a predicted restoration error, learned by regression instead of from the reward.

    It is the strongest control that needs no ground truth at inference. The `L` highest predictions of each patch are
    selected in training and at inference.

    Args:
        predictor: A module that maps a `StageContext` to `[b, h, w]` at the image's resolution; the softplus of its
            output is the error. `Policy(features, share=0.02)` initially predicts an error of 0.02.
        settings: Arguments of `Sampler`.
    """

    def __init__(self, predictor: nn.Module, **settings):
        super().__init__(**settings)
        self.predictor = predictor

    def score(self, context: StageContext) -> Float[Tensor, "b h w"]:
        """Predict the mean over RGB of `|OP_{k-1} - GT|`, which is not negative."""
        prediction = self.predictor(context)
        return F.softplus(prediction.to(torch.promote_types(prediction.dtype, torch.float32)))

    def loss(self, context: StageContext) -> Float[Tensor, ""]:
        """Compute the distance between the predicted and the true error; its gradient reaches the predictor alone.

        The loss is the mean Charbonnier distance over the pixels that are not padding, with both errors divided by the
        mean true error of the batch. A loss of about 1 means that predictions are off by the mean error. Below the mean
        error the distance is close to quadratic, so noisy errors are predicted by their mean and not their median.

        Raises:
            UserError: The ground truth is missing.
        """
        if context.sharp is None:
            raise UserError("the predicted_error sampler learns from the sharp image: train it on pairs.")
        height, width = context.sharp.shape[-2:]
        predicted, error = (x[:, :height, :width] for x in (self.score(context), true_error(context)))
        # Errors below a thousandth of a grey level are not scaled up any further.
        difference = (predicted - error) / error.mean().clamp(min=1e-3 / 255)
        return ((1 + difference.square()).sqrt() - 1).mean()
