"""MIMO-UNet, MPRNet and Restormer at small sizes: images of any size, batches, training, and memory of large images."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sapnet.errors import UserError
from sapnet.models.mimo_unet import MIMOUNet
from sapnet.models.mprnet import MPRNet
from sapnet.models.restormer import Restormer
from sapnet.training.losses import StageLoss
from sapnet.training.restoration_module import RestorationModule
from tests.models.oracle import ORACLES
from tests.training.test_policy_gradient_module import Adam, copies, fit, moved

NETWORKS = {
    "mimo_unet": (lambda: MIMOUNet(1, 4), StageLoss("l1", frequency=0.1), 3),
    "mimo_unet_plus": (lambda: MIMOUNet(2, 4, dropout=0.1), StageLoss("l1", frequency=0.1), 3),
    "mprnet": (lambda: MPRNet(4, 2, 6, 1), StageLoss("charbonnier", edge=0.05), 3),
    "restormer": (lambda: Restormer(8, (1, 1, 1, 1), 1), StageLoss("l1"), 1),
}
each = pytest.mark.parametrize("name", NETWORKS)


@each
@settings(max_examples=6, deadline=None)
@given(height=st.integers(1, 24), width=st.integers(1, 24))
@torch.no_grad()
def test_any_size_from_one_pixel_up(name, height, width):
    blurred, (make, _, stages) = torch.rand(1, 3, height, width), NETWORKS[name]
    outputs = make().eval()(blurred)
    assert len(outputs) == stages
    assert all(output.shape == blurred.shape and output.isfinite().all() for output in outputs)


@each
@torch.no_grad()
def test_images_of_a_batch_are_independent(name):
    torch.manual_seed(0)
    network, images = NETWORKS[name][0]().double().eval(), torch.rand(3, 3, 24, 16, dtype=torch.float64)
    together = network(images)
    for n in range(3):
        for alone, all_of_them in zip(network(images[n : n + 1]), together, strict=True):
            torch.testing.assert_close(alone, all_of_them[n : n + 1])


@each
def test_training_by_the_ordinary_module(name):
    """With the losses of each publication, at every scale or stage."""
    torch.manual_seed(0)
    make, loss, stages = NETWORKS[name]
    network = make()
    before, module = copies(network), RestorationModule(network, loss, Adam)
    metrics = fit(module, 2).callback_metrics
    assert module.generator_steps == 2 and moved(before, network)
    assert {f"train/loss_{k}" for k in range(1, stages + 1)} | {f"val/psnr_{stages}"} <= set(metrics)
    network = make()
    sum(output.sum() for output in network(torch.rand(1, 3, 16, 16))).backward()
    assert [n for n, parameter in network.named_parameters() if parameter.grad is None] == []


def test_mimo_unet_learns_each_scale_at_its_own_size():
    network = MIMOUNet(1, 4)
    blurred = torch.rand(1, 3, 18, 12)
    assert [tuple(o.shape[-2:]) for o in network.train()(blurred)] == [(5, 3), (9, 6), (18, 12)]
    for layer in (*network.ConvsOut, network.feat_extract[5]):
        nn.init.zeros_(layer.main[0].weight)
        nn.init.zeros_(layer.main[0].bias)
    quarter, half, full = network(blurred)
    torch.testing.assert_close(quarter[..., :4, :], blurred[..., :16:4, ::4])
    torch.testing.assert_close((half, full), (blurred[..., ::2, ::2], blurred))
    sharp = torch.rand(1, 3, 16, 12)
    losses = StageLoss("l1").per_stage(network(blurred[..., :16, :]), sharp)
    small = blurred[..., :16:2, ::2]
    torch.testing.assert_close(losses[1], F.l1_loss(small, F.interpolate(sharp, scale_factor=0.5, mode="bilinear")))


def test_one_parameter_of_mprnet_belongs_to_all_activations():
    network = MPRNet(4, 2, 6, 1)
    activations = [module for module in network.modules() if isinstance(module, nn.PReLU)]
    assert len(activations) == 1
    names = [name for name, value in network.state_dict().items() if value.shape == (1,)]
    # Shallow features, encoders, decoders, the last stage's groups of one block.
    assert len(names) == 3 + 2 * 6 + 2 * 8 + 3


def test_heads_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(UserError, match=r"network\.heads=\[3, 2, 4, 8\], network\.width=8: .*must divide"):
        Restormer(8, heads=(3, 2, 4, 8))
    with pytest.raises(UserError, match="four"):
        Restormer(8, (1, 1))


class PeakMemory(TorchDispatchMode):
    """Records the largest number of bytes that the results of operations occupy at one time, on any device."""

    def __init__(self):
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, operator, types, arguments=(), keywords=None):
        result = operator(*arguments, **(keywords or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self.alive[reference.cdata] = (reference, storage.nbytes())
        self.alive = {key: value for key, value in self.alive.items() if not value[0].expired()}
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return result


@pytest.mark.parametrize(
    "name, gibibytes", [("mimo_unet", 1.85), ("mimo_unet_plus", 1.85), ("mprnet", 3.64), ("restormer", 5.19)]
)
@torch.no_grad()
def test_memory_of_a_large_image(name, gibibytes):
    """Of the intermediate results for 1280x720 in float32, as `docs/networks.md` states it."""
    oracle = next(oracle for oracle in ORACLES if oracle.network == name)
    with torch.device("meta"):
        network, image = oracle.build(), torch.empty(1, 3, 720, 1280)
    with PeakMemory() as memory:
        network(image)
    assert memory.peak / 2**30 == pytest.approx(gibibytes, abs=0.005)
