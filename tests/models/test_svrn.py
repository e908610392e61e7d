"""SVRN: names and shapes of the authors' weights, cost, and a literal implementation."""

import pytest
import torch
import torch.nn.functional as F

from sapnet.models.svrn import SVRN
from tests.models.peers import parameters_and_macs
from tests.models.test_peers import documented_row

#: Shapes of the weights in the authors' file; every layer has a bias.
SHAPES = {
    "conve1_1": (16, 3, 11, 11), "conve1_2": (32, 16, 7, 7),
    "convg1_1": (64, 3, 3, 3), "convg1_2": (64, 64, 3, 3), "convg2_1": (128, 64, 3, 3), "convg2_2": (128, 128, 3, 3),
    "convg3_1": (256, 128, 3, 3), "convg3_2": (256, 256, 3, 3), "convg3_3": (256, 256, 3, 3),
    "convg4_1": (512, 256, 3, 3), "convg4_2": (512, 512, 3, 3), "convg4_3": (256, 512, 3, 3),
    "convgd1": (128, 512, 3, 3), "convgd1_2": (128, 128, 3, 3),
    "convgd2": (256, 256, 3, 3), "convgd2_2": (512, 256, 3, 3),
    **{f"conv_rnn{n}": (32, 128, 3, 3) for n in range(1, 5)},
    "convd1_1": (16, 64, 9, 9), "convd1_2": (3, 32, 5, 5),
}  # fmt: skip


def test_names_and_shapes_of_weights_and_cost():
    with torch.device("meta"):
        state = SVRN().state_dict()
    expected = {f"{name}.weight": shape for name, shape in SHAPES.items()}
    expected |= {f"{name}.bias": shape[:1] for name, shape in SHAPES.items()}
    assert {name: tuple(value.shape) for name, value in state.items()} == expected
    parameters, gmacs = parameters_and_macs(SVRN)
    assert documented_row("svrn") == [str(SVRN.requirements), f"{parameters:,}", f"{gmacs:.2f}"]
    assert parameters == 9_227_027 and gmacs == pytest.approx(53.76, rel=1e-3)


def literal(network: SVRN, image):
    """Follow the authors' layer list; `height` is that of their arrays, the width of the image."""

    def layer(name, x, stride=1):
        conv = network.get_submodule(name)
        return F.conv2d(x, conv.weight, conv.bias, stride, conv.weight.shape[-1] // 2)

    def relu(name, x):
        return layer(name, x).clamp(min=0)

    def pool(x):
        return F.max_pool2d(x, 2)

    def up(x):
        # Separable, as a transposed convolution that adds nothing from beyond the border.
        kernel = torch.tensor([0.5, 1, 0.5], dtype=x.dtype)
        weight = (kernel[:, None] * kernel).expand(x.shape[1], 1, 3, 3)
        return F.conv_transpose2d(x, weight, stride=2, groups=x.shape[1])[..., 1:, 1:]

    def scan(x, gate, dim, steps):
        state, lines = torch.zeros_like(x.select(dim, 0)), [None] * x.shape[dim]
        for t in steps:
            now, g = x.select(dim, t), gate.select(dim, t)
            state = lines[t] = g * (state - now) + now
        return torch.stack(lines, dim)

    x = image.transpose(2, 3)
    e1 = F.leaky_relu(layer("conve1_1", x), 0.1)
    e2 = layer("conve1_2", e1, stride=2)
    g2 = relu("convg2_2", relu("convg2_1", pool(relu("convg1_2", relu("convg1_1", x)))))
    g3 = relu("convg3_2", relu("convg3_1", pool(g2)))
    g4 = relu("convg4_3", relu("convg4_2", relu("convg4_1", pool(relu("convg3_3", g3)))))
    d = relu("convgd1_2", relu("convgd1", torch.cat([g3, up(g4)], 1)))
    gates = layer("convgd2_2", relu("convgd2", torch.cat([g2, up(d)], 1))).tanh()
    groups = gates.split(e2.shape[1], dim=1)
    y, (height, width) = e2, e2.shape[-2:]
    for n in range(4):
        x1, y1, x2, y2 = groups[4 * n : 4 * n + 4]
        scans = [
            scan(y, x1, 3, range(width)),
            scan(y, x2, 3, range(width - 1, -1, -1)),
            scan(y, y1, 2, range(height)),
            scan(y, y2, 2, range(height - 1, -1, -1)),
        ]
        y = F.leaky_relu(layer(f"conv_rnn{n + 1}", torch.cat(scans, 1)), 0.1)
    y = F.leaky_relu(layer("convd1_1", torch.cat([e2, y], 1)), 0.1)
    return layer("convd1_2", torch.cat([e1, up(y)], 1)).transpose(2, 3)


def test_equals_a_literal_implementation():
    torch.manual_seed(0)
    network = SVRN(4, (2, 3, 4, 5)).double()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    image = torch.rand(2, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(image)[0], literal(network, image))
