"""Validation of network configurations."""

import pytest
import torch

from sapnet.checkpoints.files import add_metadata
from sapnet.checkpoints.network import network_from_checkpoint
from sapnet.checkpoints.network_config import check_network_config
from sapnet.errors import UserError
from tests.checkpoints.writing import write_checkpoint
from tests.training.two_optimizers import MODEL


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "sapnet.files.write_atomically",
        "sapnet.models",
        "sapnet.modelsx.Evil",
        "sapnet.models.sapnet.network.nn.Module",
        "sapnet.models.sapnet.network.split",
        "sapnet.models.sapnet.network.Tensor",
        "sapnet.models.sapnet.network.torch.hub.load",
        "sapnet.layers.content_aware.os.system",
        "sapnet.models.sapnet.Gone",
        "sapnet.models..SAPNet",
        "sapnet.models.${oc.env:HOME}",
        ["sapnet.models.sapnet.SAPNet"],
        None,
    ],
)
@pytest.mark.parametrize(
    "place",
    [
        lambda target: target,
        lambda target: MODEL | {"options": target},
        lambda target: MODEL | {"options": [{"deep": [target]}]},
        lambda target: MODEL | {"_args_": [target]},
        lambda target: MODEL | {"_recursive_": False, "options": target},
        lambda target: target | {"_partial_": True},
    ],
)
def test_a_checkpoint_cannot_name_other_classes(tmp_path, network, target, place):
    path = write_checkpoint(tmp_path / "malicious.ckpt", network, network_config={})
    content = torch.load(path, weights_only=True)
    content["sapnet"]["model"] = place({"_target_": target, "command": "touch trace"})
    torch.save(content, path)
    with pytest.raises(UserError, match=r"malicious.ckpt: model.* names .*sapnet"):
        network_from_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stem": "${oc.decode:'{_target_: os.system}'}"}, "model.stem contains the interpolation"),
        ({"_exec_": "x"}, "has the key '_exec_'"),
        ({3: 4}, "has the key 3"),
        ({"stem": torch.zeros(1)}, "model.stem contains a Tensor"),
    ],
)
def test_a_configuration_contains_only_plain_values(change, message):
    with pytest.raises(UserError, match=message):
        check_network_config(MODEL | change)


def test_other_classes_are_refused_when_writing():
    with pytest.raises(UserError, match=r"names 'torch\.nn\.Conv2d'"):
        add_metadata({}, {"_target_": "torch.nn.Conv2d"}, 1)
