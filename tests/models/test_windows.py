"""Windows for the global operations of whole networks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sapnet.errors import UserError
from sapnet.layers.content_aware import ContentAwareOptions
from sapnet.layers.filtering import PixelDependentFilter
from sapnet.models.adaptive_network import AdaptiveNetwork, use_window
from sapnet.models.dmphn import DMPHN
from sapnet.models.sapnet import SAPNet
from sapnet.models.srn import SRN

VARIANTS = {
    "U": {},
    "NU": {"sampled": True},
    "NU, full-size Q": {"sampled": True, "options": ContentAwareOptions(full_size_q=True)},
    "NU, full attention": {"sampled": True, "options": ContentAwareOptions(full_attention=True)},
    "NU, all candidates": {"sampled": True, "candidates": "full"},
    "U, r = 1, 2, 4": {"scales": (1, 2, 4)},
}


def make_network(variant="NU", sampler="learned", spread=0.07):
    """Build a small network with all parameters changed, so that it is not the identity."""
    torch.manual_seed(0)
    changes = VARIANTS[variant]
    network = SAPNet(**{"stem": 4, "channels": (4, 6, 8), "encoder_blocks": 1, "decoder_blocks": 1} | changes)
    if network.sampled_stages:
        network = AdaptiveNetwork(network, sampler, candidates=changes.get("candidates", "canvas"))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return network.double().eval()


def image(height, width):
    return torch.rand(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_images_no_larger_than_the_window_are_not_affected(variant):
    network = make_network(variant)
    for size in [(32, 32), (19, 30), (1, 32)]:
        network.use_window(None)
        before = network(image(*size))
        network.use_window(32)
        assert all(torch.equal(a, b) for a, b in zip(before, network(image(*size)), strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_larger_images_change_until_the_window_is_removed(variant):
    network, blurred = make_network(variant), image(48, 40)
    before = network(blurred)
    keys = list(network.state_dict())
    network.use_window(32)
    assert not torch.allclose(before[-1], network(blurred)[-1])
    assert list(network.state_dict()) == keys, "the state dict changed"
    network.use_window(None)
    assert all(torch.equal(a, b) for a, b in zip(before, network(blurred), strict=True))


def make_local(network, monkeypatch):
    """Limit convolutions, filters and interpolation to single positions, so that only global operations mix them."""
    for module in network.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, nn.ConvTranspose2d):
            weight.data[..., [0, 3], :] = weight.data[..., [0, 3]] = 0
        elif isinstance(module, nn.Conv2d | PixelDependentFilter) and weight.shape[-1] > 1:
            middle = torch.zeros_like(weight)
            middle[..., weight.shape[-2] // 2, weight.shape[-1] // 2] = 1
            weight.data *= middle
        if getattr(module, "f_off", None) is not None:
            nn.init.zeros_(module.f_off.weight)
            nn.init.zeros_(module.f_off.bias)
    nearest = lambda canvas: canvas.repeat_interleave(2, 1).repeat_interleave(2, 2)  # noqa: E731
    monkeypatch.setattr("sapnet.models.sapnet.stage.upsample2", nearest)
    return network


@pytest.mark.parametrize(("variant", "sampler"), [("U", None), *((v, "learned") for v in VARIANTS if "NU" in v)])
@torch.no_grad()
def test_two_by_two_windows_equal_four_separate_images(variant, sampler, monkeypatch):
    """The windows of every stage are the patches of a training crop."""
    network = make_local(make_network(variant, sampler), monkeypatch)
    network.use_window(32)
    blurred = image(64, 64)
    whole = network(blurred)
    for y in (0, 32):
        for x in (0, 32):
            for actual, alone in zip(whole, network(blurred[..., y : y + 32, x : x + 32]), strict=True):
                torch.testing.assert_close(actual[..., y : y + 32, x : x + 32], alone, rtol=1e-9, atol=1e-9)
    network.use_window(None)
    assert not torch.allclose(network(blurred)[-1], whole[-1]), "windows have no effect"


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([16, 32, 48]), st.sampled_from(["learned", "random"]))
@torch.no_grad()
def test_windows_keep_the_budget_at_any_size(height, width, window, sampler):
    network = make_network("NU", sampler).float()
    network.use_window(window)
    trace = network.trace(image(height, width).float())
    assert all(o.shape[-2:] == (height, width) and o.isfinite().all() for o in trace.outputs)
    for sampling in trace.sampled_points.values():
        for scale, points in sampling.points.items():
            assert (points >= 0).sum(1).tolist() == list(sampling.counts[scale]), "not exactly L points"


@torch.no_grad()
def test_training_ignores_the_window_and_another_sampler_keeps_it():
    network, blurred = make_network("NU", "uniform").train(), image(48, 48)
    before = network(blurred)
    network.use_window(32)
    assert all(torch.equal(a, b) for a, b in zip(before, network(blurred), strict=True))
    network.eval().use_sampler("gradient")
    assert network.trace(blurred).contexts[1].windows is not None


@pytest.mark.parametrize(
    ("make", "window", "message"),
    [
        (lambda: SAPNet(4, (4, 4, 4)), 100, "multiple of 16"),
        (lambda: SAPNet(4, (4, 4, 4)), 0, "multiple of 16"),
        (lambda: SAPNet(4, (4, 4, 4), stages=4), 48, "multiple of 32"),
        (lambda: DMPHN(3), 256, "DMPHN has no attention"),
        (lambda: SRN(), 256, "SRN has no attention"),
        (lambda: AdaptiveNetwork(DMPHN(4, progressive=True, sampled=True)), 256, "DMPHN has no attention"),
        (
            lambda: SAPNet(4, (4, 4, 4), options=ContentAwareOptions(False, False, False)),
            256,
            "no attention or sampling to limit",
        ),
    ],
)
def test_invalid_windows_are_refused(make, window, message):
    network = make()
    with pytest.raises(UserError, match=message):
        use_window(network, window)
    use_window(network, None)
