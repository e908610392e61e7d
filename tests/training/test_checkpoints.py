"""Checkpoints run no code when read, and rebuild the network they were made with."""

import os
import pickle
from pathlib import Path

import hydra
import pytest
import torch

from sapnet.errors import UserError
from sapnet.training.checkpoints import (
    AtomicCheckpointIO,
    check_buildable,
    load_checkpoint,
    network_from_checkpoint,
    short_hash,
    stamp,
)
from tests.training.two_optimizers import MODEL


@pytest.fixture
def network():
    torch.manual_seed(0)
    return hydra.utils.instantiate(MODEL)


@pytest.fixture
def checkpoint(tmp_path, network) -> Path:
    return written(tmp_path / "small.ckpt", network)


def written(path: Path, network, model=MODEL, steps=70, **changes) -> Path:
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    content = {"state_dict": state | {"policy.weight": torch.zeros(2)}}
    stamp(content, model, steps)
    content["sapnet"] |= changes
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


# --- reading


class Hostile:
    """A pickle that creates a file when loaded carelessly."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("io", [AtomicCheckpointIO().load_checkpoint, load_checkpoint, network_from_checkpoint])
@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_hostile_file_runs_nothing(tmp_path, io, save):
    witness, path = tmp_path / "witness", tmp_path / "hostile.ckpt"
    save({"state_dict": {}, "sapnet": Hostile(witness)}, path)
    with pytest.raises(UserError, match=r"hostile.ckpt: (not loaded.* could run code|the file is damaged)"):
        io(path)
    assert not witness.exists()
    torch.load(path, weights_only=False) if save is torch.save else pickle.loads(path.read_bytes())
    assert witness.exists(), "the file was harmless, so the test shows nothing"


def test_lightning_cannot_ask_for_a_careless_load(tmp_path):
    witness, path = tmp_path / "witness", tmp_path / "hostile.ckpt"
    torch.save({"x": Hostile(witness)}, path)
    with pytest.raises(UserError):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not witness.exists()


def test_broken_files_are_one_sentence_each(tmp_path, checkpoint):
    whole = checkpoint.read_bytes()
    (tmp_path / "folder").mkdir()
    cases = {
        "missing.ckpt": (None, "there is no such checkpoint"),
        "empty.ckpt": (b"", "damaged"),
        "text.ckpt": (b"this is no checkpoint at all\n", "damaged"),
        "torn.ckpt": (whole[: len(whole) // 2], "damaged"),
        "tail.ckpt": (whole[:-10], "damaged"),
        "folder": (None, r"is a folder: give the checkpoint file in it"),
    }
    for name, (content, words) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=words) as caught:
            load_checkpoint(tmp_path / name)
        assert name in str(caught.value) and "\n" not in str(caught.value), name


def test_any_cut_of_a_checkpoint_is_refused(tmp_path, checkpoint):
    whole, path = checkpoint.read_bytes(), tmp_path / "cut.ckpt"
    for cut in range(1, len(whole), len(whole) // 23):
        path.write_bytes(whole[:cut])
        with pytest.raises(UserError, match="damaged"):
            load_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "not a checkpoint but a list"),
        ({"epoch": 1}, "not a checkpoint of sapnet"),
        ({"state_dict": {}}, "carries no network configuration"),
        ({"state_dict": [], "sapnet": {"format": 1, "model": {}, "generator_steps": 1}}, "not a checkpoint of sapnet"),
        ({"state_dict": {}, "sapnet": {"format": 2, "version": "9.1"}}, r"format 2 \(sapnet 9.1\)"),
        ({"state_dict": {}, "sapnet": {"format": 1, "model": "x", "generator_steps": 1}}, "description is damaged"),
        ({"state_dict": {}, "sapnet": {"format": 1, "model": {}}}, "description is damaged"),
    ],
)
def test_what_sapnet_did_not_write_is_one_sentence(tmp_path, content, words):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=rf"other.ckpt: .*{words}"):
        load_checkpoint(tmp_path / "other.ckpt")


# --- rebuilding


def test_the_network_comes_back_as_it_was(checkpoint, network):
    rebuilt, info = network_from_checkpoint(checkpoint)
    image = torch.rand(1, 3, 20, 24)
    with torch.no_grad():
        for theirs, ours in zip(network.eval()(image), rebuilt(image), strict=True):
            assert torch.equal(theirs, ours)
    assert not rebuilt.training
    assert (info.model, info.generator_steps, info.sha256) == (MODEL, 70, short_hash(checkpoint))


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
        lambda bad: bad,
        lambda bad: MODEL | {"options": bad},
        lambda bad: MODEL | {"options": [{"deep": [bad]}]},
        lambda bad: MODEL | {"_args_": [bad]},
        lambda bad: MODEL | {"_recursive_": False, "options": bad},
        lambda bad: bad | {"_partial_": True},
    ],
)
def test_a_checkpoint_cannot_name_what_is_not_ours(tmp_path, network, target, place):
    path = written(tmp_path / "hostile.ckpt", network, model={})
    content = torch.load(path, weights_only=True)
    content["sapnet"]["model"] = place({"_target_": target, "command": "touch witness"})
    torch.save(content, path)
    with pytest.raises(UserError, match=r"hostile.ckpt: model.* names .*sapnet"):
        network_from_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stem": "${oc.decode:'{_target_: os.system}'}"}, "model.stem holds the interpolation"),
        ({"_exec_": "x"}, "has the key '_exec_'"),
        ({3: 4}, "has the key 3"),
        ({"stem": torch.zeros(1)}, "model.stem holds a Tensor"),
    ],
)
def test_a_configuration_holds_plain_values_only(change, words):
    with pytest.raises(UserError, match=words):
        check_buildable(MODEL | change)


def test_a_configuration_that_could_not_be_read_back_is_refused_when_written():
    with pytest.raises(UserError, match=r"names 'torch\.nn\.Conv2d'"):
        stamp({}, {"_target_": "torch.nn.Conv2d"}, 1)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (MODEL | {"width": 3}, "cannot build the network .*unexpected keyword argument 'width'"),
        (MODEL | {"_partial_": True}, "describes no network"),
        ({"_target_": "sapnet.layers.content_aware.ContentAwareOptions"}, "no network but a ContentAwareOptions"),
        (MODEL | {"channels": [4, 4, 16]}, r"do not fit the network it describes: \S+ is .* in the checkpoint and"),
        (MODEL | {"stages": 2}, r"do not fit the network it describes: stages.1\S+ is missing in the checkpoint"),
    ],
)
def test_weights_and_description_that_disagree_are_one_sentence(tmp_path, network, model, words):
    path = written(tmp_path / "odd.ckpt", network, model=model)
    with pytest.raises(UserError, match=rf"odd.ckpt: .*{words}") as caught:
        network_from_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_what_the_policy_reads_is_carried(tmp_path):
    model = MODEL | {"stages": 2, "sampled": True}
    model = {
        "_target_": "sapnet.models.adaptive_network.AdaptiveNetwork",
        "policy_inputs": "features",
        "generator": model,
    }
    path = written(tmp_path / "nu.ckpt", hydra.utils.instantiate(model), model)
    network, _ = network_from_checkpoint(path)
    assert network.samplers["1"].policy.inputs == "features"
    network.use_sampler("predicted_error")
    assert network.samplers["1"].predictor.inputs == "features"


def test_a_checkpoint_with_the_former_path_of_a_class_is_loaded(tmp_path):
    model = {"_target_": "sapnet.models.adaptive_network.AdaptiveNetwork", "sampler": "random"}
    model["generator"] = MODEL | {"stages": 2, "sampled": True}
    network = hydra.utils.instantiate(model)
    content = {"state_dict": {f"network.{name}": value for name, value in network.state_dict().items()}}
    stamp(content, model, 1, config={"sampling": {"network": model}})
    for described in (content["sapnet"]["model"], content["sapnet"]["config"]["sampling"]["network"]):
        described["_target_"] = "sapnet.models.adaptive.AdaptiveNetwork"
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "old.ckpt")
    loaded, _ = network_from_checkpoint(tmp_path / "old.ckpt")
    assert type(loaded) is type(network)
    stored = load_checkpoint(tmp_path / "old.ckpt")["sapnet"]
    assert stored["config"]["sampling"]["network"] == stored["model"] == model


def test_the_networks_name_is_the_users_or_that_of_its_classes(tmp_path, network):
    content = {"state_dict": {f"network.{name}": value for name, value in network.state_dict().items()}}
    stamp(content, MODEL, 1, network="network=mini sampling=uniform_network")
    AtomicCheckpointIO().save_checkpoint(content, tmp_path / "named.ckpt")
    assert network_from_checkpoint(tmp_path / "named.ckpt")[1].network == "network=mini sampling=uniform_network"
    assert network_from_checkpoint(written(tmp_path / "old.ckpt", network))[1].network == "SAPNet"
    model = {"_target_": "sapnet.models.adaptive_network.AdaptiveNetwork", "sampler": "random"}
    model["generator"] = MODEL | {"stages": 2, "sampled": True}
    path = written(tmp_path / "nu.ckpt", hydra.utils.instantiate(model), model)
    assert network_from_checkpoint(path)[1].network == "SAPNet, sampler=random"


def test_the_hash_is_that_of_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert short_hash(tmp_path / "file") == "ba7816bf8f01"
