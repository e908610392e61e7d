"""Local windows in place of the image for everything that is global, in whole networks."""

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


def network(variant="NU", sampler="learned", spread=0.07):
    """A small network whose every parameter was moved, so that nothing starts as the identity."""
    torch.manual_seed(0)
    changes = VARIANTS[variant]
    made = SAPNet(**{"stem": 4, "channels": (4, 6, 8), "encoder_blocks": 1, "decoder_blocks": 1} | changes)
    if made.sampled_stages:
        made = AdaptiveNetwork(made, sampler, candidates=changes.get("candidates", "canvas"))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return made.double().eval()


def image(height, width):
    return torch.rand(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_an_image_no_larger_than_the_window_is_restored_bit_for_bit_as_without(variant):
    made = network(variant)
    for size in [(32, 32), (19, 30), (1, 32)]:
        made.use_window(None)
        before = made(image(*size))
        made.use_window(32)
        assert all(torch.equal(a, b) for a, b in zip(before, made(image(*size)), strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_a_larger_image_changes_until_the_window_is_taken_back(variant):
    made, blurred = network(variant), image(48, 40)
    before = made(blurred)
    keys = list(made.state_dict())
    made.use_window(32)
    assert not torch.allclose(before[-1], made(blurred)[-1])
    assert list(made.state_dict()) == keys, "checkpoints stay as they are"
    made.use_window(None)
    assert all(torch.equal(a, b) for a, b in zip(before, made(blurred), strict=True))


def blind(made, monkeypatch):
    """Let no convolution, filter or interpolation see a neighbour: what still mixes positions is global."""
    for module in made.modules():
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
    return made


@pytest.mark.parametrize(("variant", "sampler"), [("U", None), *((v, "learned") for v in VARIANTS if "NU" in v)])
@torch.no_grad()
def test_two_by_two_windows_equal_four_images(variant, sampler, monkeypatch):
    """Every stage's windows are the patches of a crop in training, whatever is global in between."""
    made = blind(network(variant, sampler), monkeypatch)
    made.use_window(32)
    blurred = image(64, 64)
    whole = made(blurred)
    for y in (0, 32):
        for x in (0, 32):
            for ours, alone in zip(whole, made(blurred[..., y : y + 32, x : x + 32]), strict=True):
                torch.testing.assert_close(ours[..., y : y + 32, x : x + 32], alone, rtol=1e-9, atol=1e-9)
    made.use_window(None)
    assert not torch.allclose(made(blurred)[-1], whole[-1]), "the test must be able to fail"


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([16, 32, 48]), st.sampled_from(["learned", "random"]))
@torch.no_grad()
def test_any_size_spends_the_same_budget(height, width, window, sampler):
    made = network("NU", sampler).float()
    made.use_window(window)
    walk = made.trace(image(height, width).float())
    assert all(o.shape[-2:] == (height, width) and o.isfinite().all() for o in walk.outputs)
    for sampling in walk.sampled_points.values():
        for scale, points in sampling.points.items():
            assert (points >= 0).sum(1).tolist() == list(sampling.counts[scale]), "exactly L points"


@torch.no_grad()
def test_training_knows_no_window_and_another_sampler_keeps_it():
    made, blurred = network("NU", "uniform").train(), image(48, 48)
    before = made(blurred)
    made.use_window(32)
    assert all(torch.equal(a, b) for a, b in zip(before, made(blurred), strict=True))
    made.eval().use_sampler("gradient")
    assert made.trace(blurred).states[1].windows is not None


@pytest.mark.parametrize(
    ("make", "window", "words"),
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
            "neither attention nor sampling",
        ),
    ],
)
def test_what_it_refuses(make, window, words):
    made = make()
    with pytest.raises(UserError, match=words):
        use_window(made, window)
    use_window(made, None)
