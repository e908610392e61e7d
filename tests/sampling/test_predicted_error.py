"""The predicted-error sampler: learning, its loss and its gradients."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.errors import UserError
from sapnet.evaluation.policy_study import auc_of_hardest
from sapnet.sampling.context import StageContext, true_error
from sapnet.sampling.samplers import make_sampler
from tests.sampling.contexts import make_context


def make_toy_context(rng, size=(32, 48), error=0.05):
    """The error is large where the blurred image is bright, in blobs of 8x8 pixels."""
    blobs = torch.rand(4, 1, size[0] // 8, size[1] // 8, generator=rng).repeat_interleave(8, 2).repeat_interleave(8, 3)
    blurred = (blobs + 0.05 * torch.randn(4, 3, *size, generator=rng)).clamp(0, 1)
    sign = torch.where(torch.rand(4, 1, *size, generator=rng) < 0.5, -1.0, 1.0)
    noise = 0.5 + torch.rand(4, 1, *size, generator=rng)
    return StageContext(1, (1, 1), size, None, blurred, blurred, blurred + error * blobs.square() * noise * sign)


@pytest.mark.parametrize(("stride", "error"), [(1, 0.05), (2, 0.05), (2, 0.5)])
def test_learns_to_predict_the_error(stride, error):
    """Tested on new images of the same kind; the loss and the learning rate do not depend on the scale of the error."""
    torch.manual_seed(0)
    sampler = make_sampler("predicted_error", policy_width=12, policy_stride=stride)
    optimizer = torch.optim.Adam(sampler.parameters(), lr=3e-3)
    rng = torch.Generator().manual_seed(1)
    test = make_toy_context(torch.Generator().manual_seed(2), error=error)
    first = sampler.loss(test).item()
    for _ in range(300):
        loss = sampler.loss(make_toy_context(rng, error=error))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    error_map = true_error(test)
    with torch.no_grad():
        score = sampler.score(test)
        assert sampler.loss(test) < 0.5 * first
    assert auc_of_hardest(score, error_map) > 0.9
    assert score.mean().item() == pytest.approx(error_map.mean().item(), rel=0.25)
    chosen = sampler(test, "top").mask(2)
    assert error_map[chosen].mean() > 2 * error_map.mean()


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_score_is_not_negative_and_loss_ignores_padding(height, width, seed):
    padded = -(-height // 16) * 16, -(-width // 16) * 16
    context = make_context((height, width), padded, (1, 1), seed=seed)
    torch.manual_seed(seed)
    sampler = make_sampler("predicted_error", 4, policy_stride=2)
    torch.nn.init.normal_(sampler.predictor.head.weight)
    score = sampler.score(context)
    assert (score >= 0).all() and score.isfinite().all()
    with torch.no_grad():
        predicted, error = score[:, :height, :width], true_error(context)[:, :height, :width]
        expected = (1 + ((predicted - error) / error.mean()) ** 2).sqrt().mean() - 1
    torch.testing.assert_close(sampler.loss(context).detach(), expected)


def test_loss_of_a_perfect_prediction_and_of_a_perfect_image():
    context = make_context((16, 16), grid=(1, 1))
    sampler = make_sampler("predicted_error", 4)
    sampler.score = true_error
    assert sampler.loss(context).item() == 0
    assert make_sampler("predicted_error", 4).loss(replace(context, sharp=context.restored)).isfinite()


def test_loss_has_gradients_only_for_the_predictor():
    context = make_context()
    inputs = {name: getattr(context, name).requires_grad_() for name in ("features", "restored", "blurred")}
    sampler = make_sampler("predicted_error", 4)
    torch.nn.init.normal_(sampler.predictor.head.weight)
    sampler.loss(replace(context, **inputs)).backward()
    assert all(value.grad is None for value in inputs.values())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in sampler.parameters())


def test_without_ground_truth_it_predicts_but_cannot_learn():
    context = replace(make_context(), sharp=None)
    sampler = make_sampler("predicted_error", 4)
    assert sampler(context, "top").points
    with pytest.raises(UserError, match="sharp"):
        sampler.loss(context)
