"""`candidates=full`: points among all pixels at every scale, as in Sec. 3.1."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.errors import UserError
from sapnet.layers.content_aware import ContentAwareBlock, ContentAwareOptions, regrid
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.sapnet import SAPNet, Stage, StageWidths

#: Stage -> (patches, {scale: (canvas height, width, channels, points)}) for a 64x48 image.
TABLE = {
    1: (4, {2: (16, 12, 4, None), 4: (8, 6, 6, None), 8: (4, 3, 8, None)}),
    2: (2, {2: (32, 48, 4, 384), 4: (32, 48, 6, 96), 8: (32, 48, 8, 24)}),
    3: (1, {2: (64, 48, 4, 768), 4: (64, 48, 6, 192), 8: (64, 48, 8, 48)}),
}


def tiny(**changes) -> SAPNet:
    sizes = {"stem": 4, "channels": (4, 6, 8), "encoder_blocks": 1, "decoder_blocks": 1}
    return SAPNet(**sizes | {"sampled": True, "candidates": "full"} | changes)


def test_sizes_of_canvases_and_numbers_of_points():
    """The number of points is that of smaller canvases, but every canvas has the resolution of the patch."""
    network = AdaptiveNetwork(tiny(), "random", candidates="full")
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
    assert seen == TABLE


def test_attention_pools_over_the_regular_grid_of_the_scale(monkeypatch):
    """Blocks of scale r pool over H/r x W/r; with every pixel sampled the stage equals a dense computation."""
    torch.manual_seed(0)
    options = ContentAwareOptions(kernel_size=3)
    stage = Stage(StageWidths(3, (3, 4, 5), (2, 4, 8), 2, 1), options, sampled=True, first=False, candidates="full")
    stage = stage.double()
    with torch.no_grad():
        for parameter in stage.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    image, restored = (torch.rand(2, 3, 16, 16, dtype=torch.float64) for _ in range(2))
    previous = [torch.randn(2, 16 // r, 16 // r, c, dtype=torch.float64) for r, c in [(2, 3), (4, 4), (8, 5)]]
    every = {r: torch.arange(16 * 16).expand(2, -1).contiguous() for r in (2, 4, 8)}
    by_points = stage(image, restored, previous, every)[0]
    scale_of = {3: 2, 4: 4, 5: 8}

    def dense(self, canvas, points=None, source=None, windows=None, in_place=False, gate=None):
        ca, values = self.content_aware, canvas.flatten(1, 2)
        r = scale_of[canvas.shape[-1]]
        grid = canvas[:, ::r, ::r]
        attended = ca.self_attention(values, grid, grid)
        if source is not None and ca.cross_attention is not None:
            coarse = source if source.shape[1] == 16 // r else source[:, ::r, ::r]
            attended = attended + ca.cross_attention(values, grid, coarse)
        mask = torch.sigmoid(ca.f_fus(values))
        fused = mask * attended + (1 - mask) * ca.filter(canvas, values)
        return canvas + self.project(torch.relu(fused)).view_as(canvas)

    monkeypatch.setattr(ContentAwareBlock, "forward", dense)
    torch.testing.assert_close(by_points, stage(image, restored, previous, every)[0], rtol=1e-9, atol=1e-9)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["learned", "uniform"]), st.booleans(), st.booleans())
def test_any_size_and_option(height, width, sampler, full_size_q, cross_level):
    options = ContentAwareOptions(full_size_q=full_size_q, cross_level_attention=cross_level)
    network = AdaptiveNetwork(tiny(options=options), sampler, candidates="full").eval()
    blurred = torch.rand(1, 3, height, width)
    with torch.no_grad():
        trace = network.trace(blurred)
    assert [o.shape for o in trace.outputs] == [blurred.shape] * 3
    for sampling in trace.sampled_points.values():
        assert all((p >= 0).sum(1).tolist() == list(sampling.counts[r]) for r, p in sampling.points.items())


def test_network_and_samplers_need_the_same_candidates():
    """Points of one kind of canvas are wrong or invalid on the other."""
    for network, candidates in [(tiny(), "canvas"), (tiny(candidates="canvas"), "full")]:
        with pytest.raises(UserError, match="candidates"):
            AdaptiveNetwork(network, candidates=candidates)
    with pytest.raises(UserError, match="candidates"):
        tiny(candidates="all")


def test_regrid_by_integer_factors():
    canvas = torch.arange(64.0).view(1, 8, 8, 1)
    assert torch.equal(regrid(canvas, 2, 2), canvas[:, ::4, ::4])
    assert torch.equal(regrid(regrid(canvas, 24, 24), 8, 8), canvas)
    for size in [(3, 3), (4, 2), (16, 8), (12, 12)]:
        with pytest.raises(ValueError, match="8x8"):
            regrid(canvas, *size)
