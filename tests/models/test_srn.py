"""SRN: costs and a literal implementation."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.errors import UserError
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.models.srn import SRN, ConvLSTM
from tests.models.peers import (
    choose_as_many,
    choose_everything,
    idle_parameters,
    parameters_and_macs,
    train_two_steps,
)

TINY = (2, 3, 4)


def nu(**changes) -> SRN:
    return SRN(**{"channels": TINY, "sampled": True} | changes)


def with_random_weights(network: SRN) -> SRN:
    """Draw weights that are large enough for every path to have an effect."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return network.double()


def conv(before, after, size):
    return before * after * size * size + after


BLOCKS = 6 * (conv(32, 32, 5) + conv(64, 64, 5) + conv(128, 128, 5))
PLAIN = (
    conv(6, 32, 5) + conv(32, 64, 5) + conv(64, 128, 5) + conv(128, 64, 4) + conv(64, 32, 4) + conv(32, 3, 5)
) + 2 * BLOCKS
LSTM = conv(256, 512, 3)


@pytest.mark.parametrize(
    "lstm, parameters, gmacs", [(False, 6_881_251, 83.5), (True, 8_061_411, 89.8)], ids=["plain", "lstm"]
)
def test_parameters_and_cost_equal_the_published_ones(lstm, parameters, gmacs):
    counted, macs = parameters_and_macs(lambda: SRN(lstm=lstm))
    assert counted == parameters == PLAIN + lstm * LSTM
    assert macs == pytest.approx(gmacs, rel=1e-3)


@pytest.mark.parametrize("lstm", [False, True])
def test_cost_of_sampling(lstm):
    """One more 3x3 convolution; the additional cost is that of the changes of resolution at two scales."""
    parameters, macs = parameters_and_macs(lambda: SRN(lstm=lstm, sampled=True))
    assert parameters == PLAIN + lstm * LSTM + conv(64, 32, 3)
    full, half, quarter = 256**2, 128**2, 64**2
    down = 25 * 32 * 64 * (full - half) + 25 * 64 * 128 * (half - quarter)
    up = 16 * 128 * 64 * (half - quarter) + 64 * 32 * (9 * full - 16 * half)
    _, uniform = parameters_and_macs(lambda: SRN(lstm=lstm))
    assert macs == pytest.approx(uniform + (1 + 1 / 4) * (down + up) / 1e9, abs=1e-3)


def literal_lstm(cell: ConvLSTM, x, hidden, memory):
    gates = F.conv2d(torch.cat([x, hidden], 1), cell.gates.weight, cell.gates.bias, padding=1)
    i, j, f, o = gates.chunk(4, dim=1)
    memory = memory * torch.sigmoid(f + 1.0) + torch.sigmoid(i) * torch.tanh(j)
    return torch.tanh(memory) * torch.sigmoid(o), memory


def literal(model: SRN, blurred):
    """Compute the three scales as in the publication, channels first."""
    net, state, prediction, outputs = model.network, None, blurred, []

    def apply(layer, x, stride=1):
        return F.conv2d(x, layer.weight, layer.bias, stride=stride, padding=layer.kernel_size[0] // 2)

    def apply_blocks(x, blocks):
        for block in blocks:
            x = x + apply(block.second, apply(block.first, x).relu())
        return x

    def up(layer, x):
        return F.conv_transpose2d(x, layer.weight, layer.bias, stride=2, padding=1).relu()

    for factor in (4, 2, 1):
        size = (blurred.shape[2] // factor, blurred.shape[3] // factor)
        image, prediction = (F.interpolate(x, size, mode="bilinear") for x in (blurred, prediction))
        e1 = apply_blocks(apply(net.stem, torch.cat([image, prediction], 1)).relu(), net.encoder[0])
        e2 = apply_blocks(apply(net.down[0], e1, 2).relu(), net.encoder[1])
        x = apply_blocks(apply(net.down[1], e2, 2).relu(), net.encoder[2])
        if net.lstm is not None:
            shape = x.shape[2:]
            state = (
                [torch.zeros_like(x)] * 2
                if state is None
                else [F.interpolate(s, shape, mode="bilinear") for s in state]
            )
            state = literal_lstm(net.lstm, x, *state)
            x = state[0]
        x = apply_blocks(x, net.decoder[2])
        x = apply_blocks(up(net.up[1], x) + e2, net.decoder[1])
        prediction = apply(net.head, apply_blocks(up(net.up[0], x) + e1, net.decoder[0]))
        outputs.append(F.interpolate(prediction, blurred.shape[2:], mode="bilinear"))
    return outputs


@pytest.mark.parametrize("lstm", [False, True])
def test_equals_a_literal_implementation(lstm):
    network = with_random_weights(SRN(TINY, lstm))
    blurred = torch.rand(2, 3, 32, 16, dtype=torch.float64)
    for actual, expected in zip(network(blurred), literal(network, blurred), strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("lstm", [False, True])
def test_upsampled_predictions_are_detached(lstm):
    """As published, only the LSTM state carries gradients between scales."""
    network, records = with_random_weights(SRN(TINY, lstm)), []
    network.network.register_forward_hook(lambda module, inputs, outputs: records.append(outputs))
    network(torch.rand(1, 3, 16, 16, dtype=torch.float64))
    (coarsest, _, memory), finest = records[0], records[-1][0].sum()
    assert torch.autograd.grad(finest, coarsest, allow_unused=True, retain_graph=True) == (None,)
    if lstm:
        assert torch.autograd.grad(finest, memory[1])[0].abs().max() > 0


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_any_size_from_one_pixel_up(height, width, lstm):
    blurred = torch.rand(1, 3, height, width)
    with torch.no_grad():
        outputs = SRN(TINY, lstm)(blurred)
    assert [o.shape for o in outputs] == [blurred.shape] * 3 and all(o.isfinite().all() for o in outputs)


@pytest.mark.parametrize("sampler", ["learned", "uniform", "random", "gradient", "oracle"])
@settings(max_examples=5, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([-0.9, 0.0, 2.0]))
def test_any_size_and_budget_with_every_sampler(sampler, height, width, budget):
    network = AdaptiveNetwork(nu(), sampler, budget).eval()
    blurred = torch.rand(1, 3, height, width)
    with torch.no_grad():
        trace = network.trace(blurred, torch.rand_like(blurred))
    assert [o.shape for o in trace.outputs] == [blurred.shape] * 3
    for k, scales in {1: (4, 8), 2: (2, 4)}.items():
        sampling = trace.sampled_points[k]
        assert tuple(sampling.points) == scales, "r is not in pixels of the whole image"
        assert all((p >= 0).sum(1).tolist() == list(sampling.counts[r]) for r, p in sampling.points.items())


def test_coarsest_scale_of_a_sampled_network_equals_the_uniform_network():
    sampled = with_random_weights(nu())
    uniform = SRN(TINY).double()
    uniform.load_state_dict({n: p for n, p in sampled.state_dict().items() if ".level." not in n})
    blurred = torch.rand(1, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(sampled(blurred, choose_as_many(sampled))[0], uniform(blurred)[0])


@pytest.mark.parametrize("lstm", [False, True])
def test_every_position_sampled_equals_the_dense_network(lstm):
    network = with_random_weights(nu(lstm=lstm))
    blurred = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    by_points = network(blurred, choose_everything(network))
    network_of_scale = network.network.forward

    def dense(x, memory, points):
        return network_of_scale(x, memory, None if points is None else {})

    network.network.forward = dense
    for actual, expected in zip(by_points, network(blurred, choose_everything(network)), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


def test_lstm_state_is_kept_at_unsampled_positions():
    cell = ConvLSTM(3)
    x, hidden, memory = torch.randn(3, 1, 4, 5, 3)
    points = torch.tensor([[1, 7, -1]])
    for new, old, dense in zip(
        cell(x, (hidden, memory), points), (hidden, memory), cell(x, (hidden, memory)), strict=True
    ):
        new, old, dense = (t.flatten(1, 2)[0] for t in (new, old, dense))
        torch.testing.assert_close(new[[1, 7]], dense[[1, 7]])
        unsampled = [i for i in range(20) if i not in (1, 7)]
        assert torch.equal(new[unsampled], old[unsampled])


def test_images_of_a_batch_are_independent():
    network = with_random_weights(nu())
    images, choose = torch.rand(3, 3, 32, 32, dtype=torch.float64), choose_as_many(network)
    together = network(images, choose)
    for n in range(3):
        for actual, alone in zip(together, network(images[n : n + 1], choose), strict=True):
            torch.testing.assert_close(actual[n : n + 1], alone)


def test_every_parameter_receives_a_gradient():
    network, blurred = nu(), torch.rand(2, 3, 32, 32)
    # Only the output of the coarsest scale depends on its transposed convolution.
    assert set(idle_parameters(network, blurred, choose_as_many(network))) <= {
        "network.up.0.weight",
        "network.up.0.bias",
    }
    assert idle_parameters(SRN(TINY), blurred) == []
    sum(o.sum() for o in network(blurred, choose_as_many(network))).backward()
    assert all(p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.parametrize("lstm, sampler", [(True, "learned"), (False, "learned"), (True, "oracle")])
def test_training_with_the_adaptive_module(lstm, sampler):
    torch.manual_seed(0)
    train_two_steps(nu(lstm=lstm), sampler)


def test_invalid_arguments_are_refused():
    with pytest.raises(UserError, match="uniform_network"):
        AdaptiveNetwork(SRN(TINY))
    with pytest.raises(ValueError, match="choose"):
        nu()(torch.rand(1, 3, 16, 16))
