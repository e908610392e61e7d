"""DeblurGAN and DeblurGAN-v2: statistics of the image, dropout and padding."""

import pytest
import torch

from sapnet.models.deblurgan import DeblurGAN
from sapnet.models.deblurgan_v2 import DeblurGANv2, MobileNetPyramid


@pytest.mark.parametrize("make", [lambda: DeblurGAN(2, 1), lambda: DeblurGANv2(MobileNetPyramid(8))], ids=["v1", "v2"])
def test_running_averages_are_neither_used_nor_updated(make):
    torch.manual_seed(0)
    network, image = make().eval(), torch.rand(2, 3, 64, 64)
    averages = {name: value for name, value in network.named_buffers() if "running" in name or "num_batches" in name}
    assert averages
    with torch.no_grad():
        expected = network(image)[0]
        for value in averages.values():
            value.fill_(7)
        torch.testing.assert_close(network(image)[0], expected, rtol=0, atol=0)
        network.train()(image)
    assert all((value == 7).all() for value in averages.values())


def test_dropout_is_active_in_training_alone():
    torch.manual_seed(0)
    network, image = DeblurGAN(2, 2), torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(network.eval()(image)[0], network(image)[0])
        assert not torch.equal(network.train()(image)[0], network(image)[0])


def test_a_multiple_of_32_is_padded_in_evaluation_alone():
    network, sizes = DeblurGANv2(MobileNetPyramid(8)), []
    network.fpn.register_forward_pre_hook(lambda _, inputs: sizes.append(tuple(inputs[0].shape[-2:])))
    image = torch.rand(2, 3, 64, 70)
    with torch.no_grad():
        network.train()(image)
        network.eval()(image)
    assert sizes == [(64, 96), (96, 96)]
