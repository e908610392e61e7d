"""Published networks at small sizes: images of any size, batches, and two steps of ordinary training."""

import hydra
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sapnet.configs import CONFIG_DIR, compose_network
from sapnet.models.deblurgan import DeblurGAN
from sapnet.models.deblurgan_v2 import DeblurGANv2, InceptionPyramid, MobileNetPyramid
from sapnet.models.dpn import DPN
from sapnet.models.mscnn import MSCNN
from sapnet.models.svrn import SVRN
from sapnet.models.uformer import Uformer
from sapnet.training.losses import StageLoss
from sapnet.training.restoration_module import RestorationModule
from tests.models.test_unets import PeakMemory
from tests.training.test_policy_gradient_module import Adam, copies, fit

NETWORKS = {
    "uformer": lambda: Uformer(width=2, depths=(1, 2, 2)),
    "deblurgan": lambda: DeblurGAN(width=2, blocks=2),
    "deblurgan_v2_mobilenet": lambda: DeblurGANv2(MobileNetPyramid(width=8)),
    "mscnn": lambda: MSCNN(width=2, blocks=1),
    "svrn": lambda: SVRN(width=2, gate_widths=(8, 8, 8, 8)),
    "dpn": lambda: DPN((2, 2, 2)),
}
each = pytest.mark.parametrize("name", NETWORKS)


@each
@settings(max_examples=6, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70))
@torch.no_grad()
def test_any_size_from_one_pixel_up(name, height, width):
    blurred = torch.rand(1, 3, height, width)
    outputs = NETWORKS[name]().eval()(blurred)
    assert all(output.shape == blurred.shape and output.isfinite().all() for output in outputs)


@each
@torch.no_grad()
def test_images_of_a_batch_are_independent(name):
    torch.manual_seed(0)
    network, images = NETWORKS[name]().double().eval(), torch.rand(2, 3, 70, 40, dtype=torch.float64)
    together = network(images)[-1]
    for i in range(2):
        torch.testing.assert_close(network(images[i : i + 1])[-1], together[i : i + 1])


def train_two_steps(network) -> None:
    before, module = copies(network), RestorationModule(network, StageLoss(), Adam)
    trainer = fit(module, 2)
    assert module.generator_steps == 2 and "val/psnr" in trainer.callback_metrics
    for old, (name, new) in zip(before, network.named_parameters(), strict=True):
        assert torch.equal(old, new) != new.requires_grad, name


@each
def test_training(name):
    """Every weight that the output depends on is trained."""
    torch.manual_seed(0)
    train_two_steps(NETWORKS[name]())


@pytest.mark.slow
def test_training_of_the_inception_network():
    torch.manual_seed(0)
    train_two_steps(DeblurGANv2(InceptionPyramid(width=8)))


@pytest.mark.parametrize(
    "name, gibibytes",
    [
        ("uformer_b", 2.55),
        ("mscnn", 0.70),
        ("deblurgan", 0.45),
        ("deblurgan_v2_mobilenet", 0.32),
        ("deblurgan_v2_inception", 0.62),
        ("svrn", 1.36),
        ("dpn", 2.27),
    ],
)
@torch.no_grad()
def test_memory_of_a_large_image(name, gibibytes):
    """Of the intermediate results for 1280x720 in float32, as `docs/networks.md` states it."""
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = hydra.compose("train", [f"network={name}"])
    with torch.device("meta"):
        network, image = hydra.utils.instantiate(compose_network(config)).eval(), torch.empty(1, 3, 720, 1280)
    with PeakMemory() as memory:
        network(image)
    assert memory.peak / 2**30 == pytest.approx(gibibytes, abs=0.006)
