import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.layers.content_aware import ContentAwareOptions
from sapnet.models.sapnet import SAPNet, Stage, StageWidths

#: Stage -> (patches, canvas size and width at each scale) for a 64x48 image; channels 4, 6, 8.
UNIFORM = {
    1: (4, {2: (16, 12, 4), 4: (8, 6, 6), 8: (4, 3, 8)}),
    2: (2, {2: (16, 24, 4), 4: (8, 12, 6), 8: (4, 6, 8)}),
    3: (1, {2: (32, 24, 4), 4: (16, 12, 6), 8: (8, 6, 8)}),
}


def tiny(**changes) -> SAPNet:
    return SAPNet(**{"stem": 4, "channels": (4, 6, 8), "encoder_blocks": 1, "decoder_blocks": 1} | changes)


def test_the_table_of_canvases_of_the_uniform_network():
    """Table of the uniform hierarchy: patches and feature sizes of every stage and scale."""
    network = tiny()
    seen: dict[int, tuple] = {}
    for k, stage in enumerate(network.stages, start=1):

        def record(module, inputs, outputs, k=k):
            decoded = outputs[1]
            seen[k] = (inputs[0].shape[0], {s: tuple(d.shape[1:]) for s, d in zip(module.scales, decoded)})

        stage.register_forward_hook(record)
    network(torch.rand(1, 3, 64, 48))
    assert seen == UNIFORM


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_any_size_from_one_pixel_up(height, width):
    blurred = torch.rand(1, 3, height, width)
    with torch.no_grad():
        outputs = tiny()(blurred)
    assert [o.shape for o in outputs] == [blurred.shape] * 3
    assert all(o.isfinite().all() for o in outputs)


def test_starts_as_the_identity():
    blurred = torch.rand(2, 3, 32, 32)
    for output in tiny()(blurred):
        torch.testing.assert_close(output, blurred, rtol=0, atol=0)


def trained_a_little(network: SAPNet) -> SAPNet:
    for stage in network.stages:
        torch.nn.init.normal_(stage.head.weight, std=0.1)
    return network


def test_images_of_a_batch_do_not_mix():
    """Patches are stacked on the batch axis: a wrong order would let images leak into each other."""
    torch.manual_seed(0)
    network = trained_a_little(tiny()).double()
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    together = network(images)
    for n in range(3):
        for ours, alone in zip(together, network(images[n : n + 1])):
            torch.testing.assert_close(ours[n : n + 1], alone)


def test_stage_one_sees_quarters_and_stage_two_halves():
    torch.manual_seed(0)
    network = trained_a_little(tiny()).double()
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    for output, rows, cols in zip(network(image), (16, 16, 32), (16, 32, 32)):
        (gradient,) = torch.autograd.grad(output[..., :4, :4].sum(), image, retain_graph=True)
        touched = gradient.abs().sum((0, 1)) > 0
        assert touched[:rows, :cols].any()
        assert not touched[rows:].any() and not touched[:, cols:].any()
    assert touched[16:, 16:].any(), "the last stage sees the whole image"


def test_every_parameter_receives_a_gradient():
    """Nothing is detached between stages, and no parameter is left out (DDP would fail on it)."""
    torch.manual_seed(0)
    network = trained_a_little(tiny(encoder_blocks=2, decoder_blocks=2))
    network(torch.rand(2, 3, 32, 32))[-1].square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    # Stage 1's own output bias shifts all of OP_1, which is felt; nothing may be idle.
    assert idle == []


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_other_numbers_of_stages(stages):
    assert len(tiny(stages=stages)(torch.rand(1, 3, 20, 20))) == stages


def test_the_other_reading_of_the_scales():
    """N, M, P read as r = 1, 2, 4 with 3, 2, 2 blocks."""
    network = tiny(scales=(1, 2, 4), encoder_blocks=(3, 2, 2), decoder_blocks=(3, 2, 2))
    assert network(torch.rand(1, 3, 17, 9))[-1].shape == (1, 3, 17, 9)


def test_cross_level_attention_off_adds_the_previous_features():
    """As DMPHN does: without CLA the previous stage must still reach the next one's features."""
    torch.manual_seed(0)
    stage = Stage(
        StageWidths(4, (4, 6, 8), (2, 4, 8), 1, 1),
        ContentAwareOptions(cross_level_attention=False),
        sampled=False,
        first=False,
    ).double()
    torch.nn.init.normal_(stage.head.weight)
    image = torch.rand(1, 3, 16, 16, dtype=torch.float64)
    previous = [
        torch.rand(1, 16 // r, 16 // r, c, dtype=torch.float64, requires_grad=True) for r, c in [(2, 4), (4, 6), (8, 8)]
    ]
    stage(image, image, previous)[0].sum().backward()
    assert all(p.grad.abs().max() > 0 for p in previous)


def test_wrong_sizes_of_the_widths_are_refused():
    with pytest.raises(ValueError, match="2 channel widths for 3 scales"):
        StageWidths(4, (4, 6))
    with pytest.raises(ValueError, match="double"):
        StageWidths(4, (4, 6, 8), (2, 4, 6))


def test_non_uniform_stages_need_points():
    with pytest.raises(ValueError, match="choose"):
        tiny(sampled=True)(torch.rand(1, 3, 16, 16))
