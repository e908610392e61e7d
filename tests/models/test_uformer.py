"""Uformer: memory on large images, skipped layers and settings. `test_peers.py` compares it with the authors' code."""

import pytest
import torch

from sapnet.errors import UserError
from sapnet.models import uformer
from sapnet.models.uformer import Block, Uformer


@torch.no_grad()
def test_chunks_do_not_change_the_result(monkeypatch):
    torch.manual_seed(0)
    network, image = Uformer(2, (1, 2, 2), bottleneck_shift=4).double().eval(), torch.rand(2, 3, 64, 96).double()
    expected = network.restore(image)[0]
    lengths = []
    for module in network.modules():
        if isinstance(module, uformer.WindowAttention):
            module.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[:2].numel()))
    monkeypatch.setattr(uformer, "CHUNK", 640)
    torch.testing.assert_close(network.restore(image)[0], expected)
    assert max(lengths) == 640


def test_a_shift_is_felt_only_by_its_own_layer():
    """The two settings of the bottleneck have the same weights and different results."""
    torch.manual_seed(0)
    shifted, plain = Uformer(2, (1, 2), bottleneck_shift=4), Uformer(2, (1, 2), bottleneck_shift=0)
    plain.load_state_dict(shifted.state_dict())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert not torch.equal(shifted(image)[0], plain(image)[0])
    layers = zip(shifted.modules(), plain.modules(), strict=True)
    different = [a for a, b in layers if isinstance(a, Block) and a.shift != b.shift]
    assert different == [shifted.conv.blocks[1]]


@pytest.mark.parametrize("rate, passed", [(0.0, 64), (0.25, 48), (0.999, 0)])
def test_samples_skip_layers_in_training_alone(rate, passed):
    torch.manual_seed(0)
    block, x = Block(4, 1, 0, 1, rate, False).double(), torch.rand(64, 8, 8, 4).double()
    block.mlp.linear2.requires_grad_(False).apply(lambda m: [p.zero_() for p in m.parameters()])  # attention alone
    block.eval()
    assert (block(x) != x).flatten(1).any(1).all()
    expected = block(x) - x
    block.train()
    added = block(x) - x
    kept = added.flatten(1).any(1)
    assert abs(int(kept.sum()) - passed) <= 8 * (0 < rate < 0.9)
    torch.testing.assert_close(added[kept], expected[kept] / (1 - rate))


def test_rates_of_skipping_rise_to_the_bottleneck_and_fall_again():
    network = Uformer(2, (1, 2, 2), drop_path=0.1)
    names = ["encoderlayer_0", "encoderlayer_1", "conv", "decoderlayer_0", "decoderlayer_1"]
    rates = [block.drop_path for name in names for block in network.get_submodule(name).blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.1, 0.1, 0.1, 0.05, 0])


def test_another_shift_is_refused():
    with pytest.raises(UserError, match=r"bottleneck_shift=3: use 0 or 4"):
        Uformer(2, (1, 2), bottleneck_shift=3)
