import pytest
import torch

from sapnet.training.losses import StageLoss


@pytest.mark.parametrize(("kind", "values"), [("l1", (0.1, 0.3)), ("mse", (0.01, 0.09))])
def test_values_of_known_errors(kind, values):
    sharp = torch.zeros(1, 3, 2, 2)
    outputs = [torch.full_like(sharp, 0.1), torch.full_like(sharp, -0.3)]
    torch.testing.assert_close(StageLoss(kind)(outputs, sharp), torch.tensor(sum(values) / 2))
    torch.testing.assert_close(StageLoss(kind, progressive=False)(outputs, sharp), torch.tensor(values[1]))


def test_charbonnier_is_smooth_at_zero():
    output = torch.zeros(1, 3, 2, 2, requires_grad=True)
    StageLoss("charbonnier")([output], torch.zeros(1, 3, 2, 2)).backward()
    assert output.grad.isfinite().all()


def test_charbonnier_is_quadratic_below_epsilon_and_linear_above():
    loss, sharp = StageLoss("charbonnier", epsilon=0.01), torch.zeros(1, 3, 2, 2, dtype=torch.float64)
    small, large = (loss([torch.full_like(sharp, d)], sharp).item() - 0.01 for d in (1e-4, 1.0))
    assert small == pytest.approx(1e-4**2 / 0.02, rel=1e-3) and large == pytest.approx(0.99, rel=1e-3)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="l3"):
        StageLoss("l3")
