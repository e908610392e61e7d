import pytest
import torch

from sapnet.errors import UserError
from sapnet.sampling.sampled_points import SampledPoints
from sapnet.training.reward import budget_penalty, stage_reward


def images():
    rng = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, 4, 5, generator=rng, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def test_without_baseline_the_reward_is_the_first_term_of_equation_5():
    restored, previous, sharp = images()
    reward = stage_reward(restored, previous, sharp, alpha=2.0, baseline="none")
    for b, y, x in ((0, 1, 2), (1, 3, 4)):
        errors = [abs(i[b, c, y, x] - sharp[b, c, y, x]).item() for i in (restored, previous) for c in range(3)]
        assert reward[b, y, x].item() == pytest.approx(-2 * sum(errors) / 3)


def test_the_improvement_baseline_does_not_depend_on_the_stage():
    restored, previous, sharp = images()
    shift = stage_reward(restored, previous, sharp) - stage_reward(restored, previous, sharp, baseline="none")
    other = torch.rand_like(restored)
    assert torch.allclose(
        shift, stage_reward(other, previous, sharp) - stage_reward(other, previous, sharp, baseline="none")
    )
    assert torch.allclose(stage_reward(sharp, previous, sharp), (previous - sharp).abs().mean(1))
    assert stage_reward(previous, previous, sharp).abs().max() == 0


def test_the_reward_has_no_gradient():
    assert not stage_reward(*images()).requires_grad


def test_an_unknown_baseline_is_a_user_error():
    with pytest.raises(UserError, match="baseline"):
        stage_reward(*images(), baseline="mean")


def test_the_penalty_counts_drawn_points_above_the_budget():
    actions = torch.zeros(3, 2, 2, dtype=torch.bool)
    actions[1, 0] = True
    actions[2] = True
    # Only one point has a slot, but all drawn points count.
    points = torch.zeros(3, 1, dtype=torch.int64)
    sampling = SampledPoints({2: points}, {2: (1, 2, 2)}, {2: 1}, torch.zeros(3, 2, 2), (1, 1), actions={2: actions})
    assert budget_penalty(sampling, 2, beta=0.5).tolist() == [-0.25, -0.25, 0.25]
