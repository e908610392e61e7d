"""Rebuilding the network of a checkpoint."""

import hydra
import pytest
import torch

from sapnet.checkpoints.files import add_metadata, load_checkpoint, short_hash
from sapnet.checkpoints.lightning_io import AtomicCheckpointIO
from sapnet.checkpoints.network import network_from_checkpoint
from sapnet.errors import UserError
from tests.checkpoints.writing import write_checkpoint
from tests.training.two_optimizers import MODEL


def test_the_rebuilt_network_equals_the_saved_one(checkpoint, network):
    rebuilt, info = network_from_checkpoint(checkpoint)
    image = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        for expected, output in zip(network.eval()(image), rebuilt(image), strict=True):
            assert torch.equal(output, expected)
    assert not rebuilt.training
    assert (info.network_config, info.generator_steps, info.sha256) == (MODEL, 70, short_hash(checkpoint))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (MODEL | {"width": 3}, "cannot build the network .*unexpected keyword argument 'width'"),
        (MODEL | {"_partial_": True}, "which is not a network"),
        ({"_target_": "sapnet.layers.content_aware.ContentAwareOptions"}, "builds a ContentAwareOptions"),
        (
            MODEL | {"channels": [4, 4, 16]},
            r"do not fit the network of the checkpoint: \S+ is .* in the checkpoint and",
        ),
        (MODEL | {"stages": 2}, r"do not fit the network of the checkpoint: stages.1\S+ is missing in the checkpoint"),
    ],
)
def test_a_wrong_network_config_is_a_user_error(tmp_path, network, model, message):
    path = write_checkpoint(tmp_path / "wrong.ckpt", network, network_config=model)
    with pytest.raises(UserError, match=rf"wrong.ckpt: .*{message}") as caught:
        network_from_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_the_inputs_of_the_policy_are_restored(tmp_path):
    model = MODEL | {"stages": 2, "sampled": True}
    model = {
        "_target_": "sapnet.models.adaptive_network.AdaptiveNetwork",
        "policy_inputs": "features",
        "generator": model,
    }
    path = write_checkpoint(tmp_path / "nu.ckpt", hydra.utils.instantiate(model), model)
    network, _ = network_from_checkpoint(path)
    assert network.samplers["1"].policy.inputs == "features"
    network.use_sampler("predicted_error")
    assert network.samplers["1"].predictor.inputs == "features"


def test_former_class_paths_are_updated(tmp_path):
    model = {"_target_": "sapnet.models.adaptive_network.AdaptiveNetwork", "sampler": "random"}
    model["generator"] = MODEL | {"stages": 2, "sampled": True}
    network = hydra.utils.instantiate(model)
    former = model | {"_target_": "sapnet.models.adaptive.AdaptiveNetwork"}
    path = write_checkpoint(tmp_path / "old.ckpt", network, model, model=former, config={"network": former})
    loaded, _ = network_from_checkpoint(path)
    assert type(loaded) is type(network)
    metadata = load_checkpoint(path)["sapnet"]
    assert metadata["config"]["network"] == metadata["model"] == model


def test_the_network_name_is_that_of_the_run_or_of_the_classes(tmp_path, network):
    content = {"state_dict": {f"network.{name}": value for name, value in network.state_dict().items()}}
    add_metadata(content, MODEL, 1, network_name="network=mini sampling=uniform_network")
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "named.ckpt")
    assert network_from_checkpoint(tmp_path / "named.ckpt")[1].network_name == "network=mini sampling=uniform_network"
    assert network_from_checkpoint(write_checkpoint(tmp_path / "old.ckpt", network))[1].network_name == "SAPNet"
    model = {"_target_": "sapnet.models.adaptive_network.AdaptiveNetwork", "sampler": "random"}
    model["generator"] = MODEL | {"stages": 2, "sampled": True}
    path = write_checkpoint(tmp_path / "nu.ckpt", hydra.utils.instantiate(model), model)
    assert network_from_checkpoint(path)[1].network_name == "SAPNet, sampler=random"
