"""Counts of operations and parameters compared with manual counts."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sapnet.evaluation.complexity import count, layer_pattern, module_table, operator_table, path_prefix
from sapnet.layers.attention import ClusterAttention, FullAttention
from sapnet.layers.content_aware import ContentAwareBlock, ContentAwareOptions
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.sapnet import SAPNet
from sapnet.ops.points import gather, scatter


class FunctionNetwork(nn.Module):
    """Network that applies a function to the blurred image."""

    def __init__(self, run, *parts: nn.Module):
        super().__init__()
        self.run, self.parts = run, nn.ModuleList(parts)

    def forward(self, blurred):
        return self.run(blurred, *self.parts)


def macs(run, *parts: nn.Module, height=8, width=16) -> dict[str, int]:
    cost = count(FunctionNetwork(run, *parts), height, width)
    return {name: flops // 2 for name, flops in cost.by_operator().items()}


def canvas(c: int, h: int = 4, w: int = 6) -> torch.Tensor:
    return torch.empty(1, h, w, c, device="meta")


def test_convolutions_and_matrix_products():
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1, device="meta")
    up = nn.ConvTranspose2d(5, 2, 4, stride=2, padding=1, device="meta")
    linear = nn.Linear(16, 7, device="meta")
    assert macs(lambda x, a, b, c: c(b(a(x))), conv, up, linear) == {
        "convolution": 4 * 8 * 5 * 3 * 9 + 4 * 8 * 5 * 2 * 16,
        "matrix product": 2 * 8 * 16 * 7,
    }


def test_bilinear_interpolation_is_four_multiply_adds_per_value():
    assert macs(lambda x: F.interpolate(x, scale_factor=2, mode="bilinear")) == {"bilinear reading": 4 * 3 * 16 * 32}
    grid = torch.empty(1, 5, 7, 2, device="meta")
    assert macs(lambda x: F.grid_sample(x, grid, align_corners=False)) == {"bilinear reading": 4 * 3 * 35}
    assert macs(lambda x: F.grid_sample(x, grid, mode="nearest", align_corners=False)) == {}
    assert macs(lambda x: F.interpolate(x, scale_factor=2)) == {}


def test_gathers_count_moved_values_and_no_operations():
    """32 points of 24 channels are read and written."""
    points = torch.empty(1, 32, dtype=torch.int64, device="meta")
    features = canvas(24, 16, 16)
    cost = count(FunctionNetwork(lambda x: scatter(features, gather(features, points), points)))
    assert cost.total_flops == 0 and sum(cost.moved.values()) == 2 * 32 * 24


def test_cluster_attention():
    """24 points, a grid of 12, 8 channels, 4 maps."""
    attention = ClusterAttention(8).to("meta")
    points, grid = torch.empty(1, 24, 8, device="meta"), canvas(8, 3, 4)
    assert macs(lambda x, a: a(points, grid, grid), attention) == {
        # Q, P, the two products, the mask of channels, and that of positions, 9 taps each.
        "matrix product": 12 * 8 * 4 + 24 * 8 * 4 + 12 * 4 * 8 + 24 * 4 * 8 + 8 * 8 + 12 * 8 * 9,
    }


def test_full_attention():
    attention = FullAttention(8).to("meta")
    points, grid = torch.empty(1, 24, 8, device="meta"), canvas(8, 3, 4)
    counted = macs(lambda x, a: a(points, grid, grid), attention)
    assert sum(counted.values()) == 24 * 8 * 4 + 12 * 8 * 4 + 12 * 8 * 8 + 24 * 12 * (4 + 8)


def test_block_at_points():
    """10 points of a canvas of 8x12, 6 channels, 25 taps."""
    block = ContentAwareBlock(6, ContentAwareOptions(masks=False)).to("meta")
    points = torch.empty(1, 10, dtype=torch.int64, device="meta")
    counted = macs(lambda x, b: b(canvas(6, 8, 12), points), block)
    grid, taps, maps = 4 * 6, 25, 3
    heads = 10 * 6 * (taps + 2 * taps + 1)
    assert counted == {
        # The fixed weight; four corners and the kernel's factor for each value read.
        "pixel-dependent filter": 10 * taps * (6 * 6 + 4 * 6 + 6),
        "matrix product": heads + 10 * 6 * 6 + grid * 6 * maps * 2 + 10 * 6 * maps * 2,
    }


def network(sampled: bool, device: str = "meta") -> nn.Module:
    with torch.device(device):
        generator = SAPNet(4, (4, 6, 8), encoder_blocks=1, decoder_blocks=1, sampled=sampled)
        return AdaptiveNetwork(generator) if sampled else generator


@pytest.mark.parametrize("sampled", [False, True])
def test_count_on_meta_equals_count_on_cpu(sampled):
    """Data-dependent steps (ranking, calibration) have the same cost on the meta device."""
    on_meta, real = count(network(sampled), 48, 40), count(network(sampled, "cpu"), 48, 40)
    assert on_meta.by_operator() == real.by_operator() and on_meta.total_parameters == real.total_parameters
    assert on_meta.flops == real.flops


def test_cost_is_proportional_to_the_image_size():
    """720p has 14.06 times the pixels of 256x256; only small parts of the attention have a fixed cost."""
    small, large = count(network(True)), count(network(True), 720, 1280)
    assert large.total_flops / small.total_flops == pytest.approx(720 * 1280 / 256**2, rel=1e-3)


def test_costs_are_attributed_to_single_modules_and_add_up():
    """The samplers run inside the forward pass of the generator; their cost is counted once, for them."""
    net = network(True)
    cost = count(net)
    assert sum(sum(f.values()) for f in cost.flops.values()) == cost.total_flops == sum(cost.by_operator().values())
    assert all(number > 0 for operators in cost.flops.values() for number in operators.values())
    assert cost.flops["generator"] == {} and cost.flops["samplers.1.policy"] == {}
    features, width = 4, 16
    assert cost.flops["samplers.1.policy.reduce"] == {"convolution": 2 * 256 * 256 * features * width}
    # Both images and their difference.
    assert cost.flops["samplers.2.policy.first"] == {"convolution": 2 * 256 * 256 * (width + 9) * width * 9}
    assert cost.total_parameters == sum(p.numel() for p in net.parameters())
    for depth in (1, 2, 4):
        groups = cost.grouped(lambda path, depth=depth: path_prefix(path, depth))
        assert sum(flops for _, flops in groups.values()) == cost.total_flops
        assert sum(parameters for parameters, _ in groups.values()) == cost.total_parameters


def test_shared_parameters_count_once_and_shared_modules_per_call():
    conv = nn.Conv2d(3, 3, 1, bias=False, device="meta")
    cost = count(FunctionNetwork(lambda x, a, b: b(a(x)), conv, conv), 4, 4)
    assert cost.total_parameters == 9 and cost.total_flops == 2 * 2 * 16 * 9


def test_count_leaves_the_network_unchanged():
    net = network(True).train()
    count(net)
    assert net.training and not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_path_prefix_and_layer_pattern():
    path = "generator.stages.1.encoder.0.1.content_aware.filter"
    assert path_prefix(path, 3) == "generator.stages.1" and path_prefix("", 3) == "(itself)"
    assert layer_pattern(path) == "generator.stages.*.encoder.*.*.content_aware.filter"
    assert layer_pattern("conv1.2") == "conv1.*" and layer_pattern("") == "(itself)"


def test_tables_name_counter_image_size_and_units():
    cost = count(FunctionNetwork(lambda x, a: a(x), nn.Conv2d(3, 1000, 1, device="meta")), 1000, 1000)
    text = operator_table(cost)
    assert "3.00 GMACs = 6.00 GFLOPs for 3x1000x1000" in text and "torch.utils.flop_counter" in text
    assert "| convolution | 3.000 | 6.000 | 100.0% |" in text
    assert "| parts.* | 4,000 | 3.000 | 100.0% |" in module_table(cost, layer_pattern, "layer")
