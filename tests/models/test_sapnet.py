import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.errors import UserError
from sapnet.layers.content_aware import ContentAwareBlock, ContentAwareOptions
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.sapnet import SAPNet, Stage, StageWidths

#: Stage -> (patches, canvas size and width at each scale) for a 64x48 image; channels 4, 6, 8.
UNIFORM = {
    1: (4, {2: (16, 12, 4), 4: (8, 6, 6), 8: (4, 3, 8)}),
    2: (2, {2: (16, 24, 4), 4: (8, 12, 6), 8: (4, 6, 8)}),
    3: (1, {2: (32, 24, 4), 4: (16, 12, 6), 8: (8, 6, 8)}),
}


def tiny(**changes) -> SAPNet:
    return SAPNet(**{"stem": 4, "channels": (4, 6, 8), "encoder_blocks": 1, "decoder_blocks": 1} | changes)


def test_sizes_of_canvases_of_the_uniform_network():
    """Patches and feature sizes of every stage and scale."""
    network = tiny()
    seen: dict[int, tuple] = {}
    for k, stage in enumerate(network.stages, start=1):

        def record(module, inputs, outputs, k=k):
            decoded = outputs[1]
            seen[k] = (inputs[0].shape[0], {s: tuple(d.shape[1:]) for s, d in zip(module.scales, decoded, strict=True)})

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


def test_initialised_as_the_identity():
    blurred = torch.rand(2, 3, 32, 32)
    for output in tiny()(blurred):
        torch.testing.assert_close(output, blurred, rtol=0, atol=0)


def with_random_heads(network: SAPNet) -> SAPNet:
    for stage in network.stages:
        torch.nn.init.normal_(stage.head.weight, std=0.1)
    return network


def test_images_of_a_batch_are_independent():
    """Patches are stacked on the batch axis, and a wrong order would mix images."""
    torch.manual_seed(0)
    network = with_random_heads(tiny()).double()
    images = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    together = network(images)
    for n in range(3):
        for actual, alone in zip(together, network(images[n : n + 1]), strict=True):
            torch.testing.assert_close(actual[n : n + 1], alone)


def test_receptive_fields_of_stages():
    torch.manual_seed(0)
    network = with_random_heads(tiny()).double()
    image = torch.rand(1, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    for output, rows, cols in zip(network(image), (16, 16, 32), (16, 32, 32), strict=True):
        (gradient,) = torch.autograd.grad(output[..., :4, :4].sum(), image, retain_graph=True)
        touched = gradient.abs().sum((0, 1)) > 0
        assert touched[:rows, :cols].any()
        assert not touched[rows:].any() and not touched[:, cols:].any()
    assert touched[16:, 16:].any(), "the last stage does not depend on the whole image"


def test_every_parameter_receives_a_gradient():
    """Nothing is detached between stages, and every parameter is used, as DDP requires."""
    torch.manual_seed(0)
    network = with_random_heads(tiny(encoder_blocks=2, decoder_blocks=2))
    network(torch.rand(2, 3, 32, 32))[-1].square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert idle == []


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_other_numbers_of_stages(stages):
    assert len(tiny(stages=stages)(torch.rand(1, 3, 20, 20))) == stages


def test_scales_1_2_4():
    """The alternative reading of N, M, P: r = 1, 2, 4 with 3, 2, 2 blocks."""
    network = tiny(scales=(1, 2, 4), encoder_blocks=(3, 2, 2), decoder_blocks=(3, 2, 2))
    assert network(torch.rand(1, 3, 17, 9))[-1].shape == (1, 3, 17, 9)


def test_without_cross_level_attention_previous_features_are_added():
    """As in DMPHN, the previous stage still influences the features of the next one without CLA."""
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


def test_added_features_of_the_previous_stage_preserve_the_variance():
    """With a plain sum the features grew from stage to stage, and networks without cross-level attention diverged."""
    stage = Stage(
        StageWidths(4, (32, 32, 32), (2, 4, 8), 1, 1),
        ContentAwareOptions(cross_level_attention=False),
        sampled=False,
        first=False,
    )
    rng = torch.Generator().manual_seed(0)
    inputs = {}
    stage.down[0].register_forward_hook(lambda module, args, output: torch.randn(output.shape, generator=rng))
    stage.encoder[0][0].register_forward_pre_hook(lambda module, args: inputs.update(canvas=args[0]))
    image = torch.rand(4, 3, 32, 32, generator=rng)
    stage(image, image, [torch.randn(4, 32 // r, 32 // r, 32, generator=rng) for r in (2, 4, 8)])
    assert inputs["canvas"].var().item() == pytest.approx(1, abs=0.05)


def test_invalid_widths_are_refused():
    with pytest.raises(ValueError, match="2 channel widths for 3 scales"):
        StageWidths(4, (4, 6))
    with pytest.raises(ValueError, match="double"):
        StageWidths(4, (4, 6, 8), (2, 4, 6))


def test_non_uniform_stages_need_points():
    with pytest.raises(ValueError, match="choose"):
        tiny(sampled=True)(torch.rand(1, 3, 16, 16))


#: The non-uniform network: (patches, {scale: (canvas height, width, channels, points)}).
NON_UNIFORM = {
    1: (4, {2: (16, 12, 4, None), 4: (8, 6, 6, None), 8: (4, 3, 8, None)}),
    2: (2, {2: (32, 48, 4, 384), 4: (16, 24, 6, 96), 8: (8, 12, 8, 24)}),
    3: (1, {2: (64, 48, 4, 768), 4: (32, 24, 6, 192), 8: (16, 12, 8, 48)}),
}


def test_sizes_of_canvases_and_numbers_of_points_of_the_non_uniform_network():
    """L = HW / r^2 points per patch, on canvases of twice the resolution of a uniform stage."""
    network = AdaptiveNetwork(tiny(sampled=True), "random")
    seen: dict[int, tuple] = {}
    for k, stage in enumerate(network.generator.stages, start=1):

        def record(module, inputs, outputs, k=k):
            points = inputs[3] or {}
            counts = {s: points[s].shape[1] if s in points else None for s in module.scales}
            seen[k] = (
                inputs[0].shape[0],
                {s: (*d.shape[1:], counts[s]) for s, d in zip(module.scales, outputs[1], strict=True)},
            )

        stage.register_forward_hook(record)
    network.eval()(torch.rand(1, 3, 64, 48))
    assert seen == NON_UNIFORM


def test_every_position_sampled_equals_the_dense_stage(monkeypatch):
    """Images and gradients of the points path equal those of blocks without points."""
    torch.manual_seed(0)
    options = ContentAwareOptions(kernel_size=3)
    stage = Stage(StageWidths(3, (3, 4, 5), (2, 4, 8), 2, 1), options, sampled=True, first=False).double()
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    image, restored = (torch.rand(2, 3, 16, 16, dtype=torch.float64, requires_grad=True) for _ in range(2))
    previous = [torch.randn(2, 16 // r, 16 // r, c, dtype=torch.float64) for r, c in [(2, 3), (4, 4), (8, 5)]]
    every = {r: torch.arange((32 // r) ** 2).expand(2, -1).contiguous() for r in (2, 4, 8)}
    tensors = [image, restored, *stage.parameters()]

    def run():
        output, decoded, last = stage(image, restored, previous, every)
        total = output.square().sum() + last.sum() + sum(d.square().sum() for d in decoded)
        return [output, *torch.autograd.grad(total, tensors)]

    by_points = run()
    monkeypatch.setattr(ContentAwareBlock, "forward", dense_block)
    for actual, expected in zip(by_points, run(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def dense_block(self, canvas, points=None, source=None, windows=None, in_place=False, gate=None):
    ca, values, grid = self.content_aware, canvas.flatten(1, 2), canvas[:, ::2, ::2]
    attended = ca.self_attention(values, grid, grid)
    if ca.cross_attention is not None and source is not None:
        coarse = source if source.shape[1] == grid.shape[1] else source[:, ::2, ::2]
        attended = attended + ca.cross_attention(values, grid, coarse)
    mask = torch.sigmoid(ca.f_fus(values))
    fused = mask * attended + (1 - mask) * ca.filter(canvas, values)
    return canvas + self.project(torch.relu(fused)).view_as(canvas)


@pytest.mark.parametrize("sampler", ["learned", "uniform", "random", "gradient", "oracle"])
@settings(max_examples=5, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([-0.9, -0.1, 0.0, 0.2, 2.0]))
def test_any_size_and_budget_with_every_sampler(sampler, height, width, budget):
    network = AdaptiveNetwork(tiny(sampled=True), sampler, budget).eval()
    blurred = torch.rand(1, 3, height, width)
    trace = network.trace(blurred, torch.rand_like(blurred))
    assert [o.shape for o in trace.outputs] == [blurred.shape] * 3
    for sampling in trace.sampled_points.values():
        for scale, points in sampling.points.items():
            assert (points >= 0).sum(1).tolist() == list(sampling.counts[scale]), "not exactly L points"


def test_budget_can_be_changed():
    network = AdaptiveNetwork(tiny(sampled=True)).eval()
    for budget, count in [(0.0, 64), (-0.9, 6), (0.2, 77), (2.0, 192)]:
        network.use_budget(budget)
        assert network.trace(torch.rand(1, 3, 16, 16)).sampled_points[2].points[2].shape[1] == count
    with pytest.raises(UserError, match="budget"):
        network.use_budget(-1.0)


@pytest.mark.parametrize("changes", [{}, {"cross_attention": False}, {"cross_level_attention": False}])
@pytest.mark.parametrize("blocks", [1, 2])
def test_in_place_inference_equals_training_mode(changes, blocks):
    """Without gradients points are refined in place, which must not overwrite a canvas that is still needed."""
    torch.manual_seed(0)
    options = ContentAwareOptions(**changes)
    network = AdaptiveNetwork(tiny(sampled=True, options=options, encoder_blocks=blocks, decoder_blocks=blocks)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    blurred = torch.rand(2, 3, 40, 56)
    learning = network(blurred)
    with torch.no_grad():
        inference = network(blurred)
    assert learning[-1].requires_grad and (learning[-1] - learning[0]).abs().max() > 1e-3
    for actual, expected in zip(inference, learning, strict=True):
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)
