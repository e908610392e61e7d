import math

import pytest
import torch

from sapnet.errors import UserError
from sapnet.sampling.context import StageContext
from sapnet.sampling.policy import Policy


def make_context(features_size=(8, 12), channels=5, size=(16, 24)):
    features = torch.randn(2, *features_size, channels, requires_grad=True)
    images = [torch.rand(2, 3, *size, requires_grad=True) for _ in range(2)]
    return StageContext(1, (2, 1), size, features, *images)


@pytest.mark.parametrize("budget", [0.0, -0.1, 0.2])
def test_initial_map_is_flat(budget):
    share = (1 + budget) / 4
    logits = Policy(5, share)(make_context())
    assert logits.shape == (2, 16, 24)
    assert torch.allclose(torch.sigmoid(logits), torch.full_like(logits, share))
    assert math.isclose(logits[0, 0, 0].item(), math.log(share / (1 - share)), rel_tol=1e-6)


def test_share_of_one_gives_finite_logits():
    assert Policy(5, 1.0)(make_context()).isfinite().all()


def test_inputs_are_detached():
    context = make_context()
    policy = Policy(5)
    torch.nn.init.normal_(policy.head.weight)
    policy(context).sum().backward()
    assert context.features.grad is None and context.restored.grad is None and context.blurred.grad is None
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in policy.parameters())


@pytest.mark.parametrize("which", ["features", "restored", "blurred"])
def test_output_depends_on_every_input(which):
    torch.manual_seed(0)
    context = make_context((16, 24))
    policy = Policy(5)
    torch.nn.init.normal_(policy.head.weight)
    fields = {name: getattr(context, name).detach() for name in ("features", "restored", "blurred")}
    before = policy(StageContext(1, (1, 1), (16, 24), **fields))
    fields[which] = fields[which] + torch.rand_like(fields[which])
    assert not torch.allclose(before, policy(StageContext(1, (1, 1), (16, 24), **fields)))


@pytest.mark.parametrize("features_size", [(15, 23), (8, 12), (4, 6)])
def test_stride_keeps_the_image_size_and_uses_every_input(features_size):
    """Also for odd sizes, and for features that are finer or coarser than the hidden layers."""
    torch.manual_seed(0)
    policy = Policy(5, 0.3, width=8, stride=2)
    context = make_context(features_size, size=(15, 23))
    assert torch.allclose(torch.sigmoid(policy(context)), torch.full((2, 15, 23), 0.3))
    torch.nn.init.normal_(policy.head.weight)
    fields = {name: getattr(context, name).detach() for name in ("features", "restored", "blurred")}
    before = policy(StageContext(1, (1, 1), (15, 23), **fields))
    for name in fields:
        changed = fields | {name: fields[name] + torch.rand_like(fields[name])}
        assert not torch.allclose(before, policy(StageContext(1, (1, 1), (15, 23), **changed)))


@pytest.mark.parametrize(("stride", "field"), [(1, 9), (2, 22)])
def test_receptive_field(stride, field):
    """The field is centred on the pixel without gaps, and covers a blur of 10 pixels at stride 2."""
    torch.manual_seed(0)
    policy = Policy(0, width=4, stride=stride).double()
    for layer in (policy.first, policy.second, policy.head):
        torch.nn.init.uniform_(layer.weight, 0.1, 1)
    image = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    seen = torch.zeros(64, 64, dtype=torch.bool)
    before = policy(StageContext(1, (1, 1), (64, 64), None, image, image))[0, 32, 32]
    for column in range(64):
        changed = image.clone()
        changed[..., 32, column] += 1
        seen[32, column] = policy(StageContext(1, (1, 1), (64, 64), None, image, changed))[0, 32, 32] != before
    columns = seen[32].nonzero().flatten()
    # Bilinear interpolation combines two pixels of the hidden layers.
    assert len(columns) == columns[-1] - columns[0] + 1
    assert field <= len(columns) <= field + 2 * (stride - 1)
    assert columns[0] <= 32 - field // 2 + stride - 1 and columns[-1] >= 32 + field // 2 - stride + 1


@pytest.mark.parametrize("numbers", [{"width": 0}, {"stride": 0}])
def test_invalid_width_and_stride_are_refused(numbers):
    with pytest.raises(UserError, match="policy"):
        Policy(5, **numbers)


def test_works_without_features():
    context = make_context()
    assert Policy(0)(StageContext(1, (1, 1), (16, 24), None, context.restored, context.blurred)).shape == (2, 16, 24)


def test_two_policies_cost_one_percent_of_the_network():
    # 140 G multiply-adds over 65,536 pixels; each weight of a full-resolution convolution is one multiply-add a pixel.
    weights = sum(p.numel() for name, p in Policy(32).named_parameters() if "weight" in name)
    assert 2 * weights < 0.01 * 140e9 / 65536


@pytest.mark.parametrize("stride", [1, 2])
def test_feature_inputs_ignore_the_images(stride):
    """As in Eq. 4, G is a function of the previous stage's features."""
    torch.manual_seed(0)
    policy = Policy(5, 0.3, width=8, stride=stride, inputs="features")
    torch.nn.init.normal_(policy.head.weight)
    context = make_context((8, 12), size=(15, 23))
    fields = {name: getattr(context, name).detach() for name in ("features", "restored", "blurred")}
    before = policy(StageContext(1, (1, 1), (15, 23), **fields))
    assert before.shape == (2, 15, 23)
    changed = fields | {"restored": torch.rand(2, 3, 15, 23), "blurred": torch.rand(2, 3, 15, 23)}
    assert torch.equal(before, policy(StageContext(1, (1, 1), (15, 23), **changed)))
    changed = fields | {"features": fields["features"] + torch.rand_like(fields["features"])}
    assert not torch.allclose(before, policy(StageContext(1, (1, 1), (15, 23), **changed)))


def test_unknown_and_missing_inputs_are_refused():
    with pytest.raises(UserError, match=r"sampling.policy_inputs=images: use features_and_images or features"):
        Policy(5, inputs="images")
    with pytest.raises(UserError, match="provides no features"):
        Policy(0, inputs="features")
