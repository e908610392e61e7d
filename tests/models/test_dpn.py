"""DPN: names and shapes of the authors' weights, cost, and a literal implementation."""

import pytest
import torch
import torch.nn.functional as F

from sapnet.models.dpn import DPN
from tests.models.peers import parameters_and_macs
from tests.models.test_peers import documented_row

#: Shapes of the weights of each scale, as (out, in, height, width), and (in, out, ...) of the transposed `dec*_3`.
SHAPES = {
    "enc1_1": (32, 2, 3, 3), "enc2_1": (64, 32, 3, 3), "enc3_1": (128, 64, 3, 3),
    "dec2_3": (128, 64, 4, 4), "dec1_3": (64, 32, 4, 4), "dec1_0": (1, 32, 3, 3),
}  # fmt: skip


def test_names_and_shapes_of_weights_and_cost():
    with torch.device("meta"):
        state = DPN().state_dict()
    weights = {f"{name}_{i}": shape for name, shape in SHAPES.items() for i in range(3)}
    for level, width in enumerate((32, 64, 128), start=1):
        convs = [f"{part}{level}_2.d{j}.conv{k}" for part in ("enc", "dec") for j in range(1, 5) for k in (1, 2)]
        weights |= dict.fromkeys(convs, (width, width, 3, 3))
    assert {n.removesuffix(".weight"): tuple(v.shape) for n, v in state.items() if n.endswith("weight")} == weights
    assert len(state) == 132
    parameters, gmacs = parameters_and_macs(DPN)
    assert documented_row("dpn") == [str(DPN.requirements), f"{parameters:,}", f"{gmacs:.2f}"]
    assert parameters == 3_871_715 and gmacs == pytest.approx(235.13, rel=1e-3)


def same(x, conv, stride=1):
    """TensorFlow's SAME padding: the smaller half before the image."""
    size = conv.weight.shape[-1]
    for dim in (2, 3):
        missing = max((-(-x.shape[dim] // stride) - 1) * stride + size - x.shape[dim], 0)
        before, after = missing // 2, missing - missing // 2
        x = F.pad(x, (0, 0, before, after) if dim == 2 else (before, after, 0, 0))
    return F.conv2d(x, conv.weight, conv.bias, stride)


def resized(x, height, width):
    """Bilinear in TensorFlow 1: positions without half a pixel of offset."""
    for dim, size in ((2, height), (3, width)):
        ratio = x.shape[dim] / size
        lines = []
        for i in range(size):
            low = int(i * ratio)
            high, share = min(low + 1, x.shape[dim] - 1), i * ratio - low
            lines.append(x.select(dim, low) * (1 - share) + x.select(dim, high) * share)
        x = torch.stack(lines, dim)
    return x


def dense(block, x):
    """As published: every function reads the input plus all earlier results."""
    results = []
    for i in range(1, 5):
        function = block.get_submodule(f"d{i}")
        inner = sum(results, x)
        results.append(same(same(inner, function.conv1).relu(), function.conv2))
    return sum(results, x)


def literal(network: DPN, plane):
    """Restore one colour plane `[1, 1, h, w]`."""
    height, width = plane.shape[-2:]
    outputs = []
    for i, factor in enumerate((4, 2, 1)):
        at = {name: network.get_submodule(f"{name}_{i}") for name in SHAPES}
        size = (height // factor, width // factor)
        blurred = resized(plane, *size)
        x = torch.cat([blurred, resized(outputs[-1] if outputs else blurred, *size)], 1)
        skips = {}
        for level in (1, 2, 3):
            x = same(x, at[f"enc{level}_1"], 1 if level == 1 else 2).relu()
            block = network.get_submodule(f"enc{level}_2")
            x = skips[level] = dense(block, dense(block, x))
        for level in (3, 2, 1):
            if level < 3:
                up = at[f"dec{level}_3"]
                # The gradient of a strided convolution with SAME padding, which is 1 on both sides here.
                x = F.conv_transpose2d(x, up.weight, up.bias, 2)[..., 1:-1, 1:-1].relu() + skips[level]
            block = network.get_submodule(f"dec{level}_2")
            x = dense(block, dense(block, x))
        outputs.append(blurred + same(x, at["dec1_0"]))
    return outputs


def test_equals_a_literal_implementation():
    torch.manual_seed(0)
    network = DPN((2, 3, 4)).double().train()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    image = torch.rand(2, 3, 16, 32, dtype=torch.float64)
    with torch.no_grad():
        outputs = network(image)
        for n, channel in ((0, 0), (1, 2)):
            expected = literal(network, image[n : n + 1, channel : channel + 1])
            for actual, plane in zip(outputs, expected, strict=True):
                torch.testing.assert_close(actual[n, channel], plane[0, 0])


def test_enlarged_restorations_are_detached():
    network, image = DPN((2, 2, 2)), torch.rand(1, 3, 16, 16)
    network.train()(image)[-1].sum().backward()
    assert network.dec1_0_2.weight.grad is not None and network.dec1_0_1.weight.grad is None
