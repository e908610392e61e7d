"""Import of published weights: safe loading, error messages, and the authors' images."""

import hashlib
import json
import pickle

import hydra
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from omegaconf import OmegaConf

from sapnet.configs import CONFIG_DIR
from sapnet.data.images import read_image, to_tensor
from sapnet.errors import UserError
from sapnet.evaluation.metrics import psnr
from sapnet.evaluation.network_evaluation import evaluate_published
from sapnet.models.dmphn import DMPHN, StackedDMPHN
from sapnet.models.inputs import InputRequirements
from sapnet.models.mimo_unet import MIMOUNet
from sapnet.models.mprnet import MPRNet
from sapnet.models.restormer import Restormer
from sapnet.models.srn import SRN
from sapnet.models.weights import load_published
from sapnet.training.assemble import build_module

#: Numbers of the layers in the authors' files, in the order of their calls; blocks have pairs of layers.
ENCODER = ("1", "2.0", "2.2", "3.0", "3.2", "5", "6.0", "6.2", "7.0", "7.2", "9", "10.0", "10.2", "11.0", "11.2")
DECODER = (
    "13.0",
    "13.2",
    "14.0",
    "14.2",
    "16",
    "17.0",
    "17.2",
    "18.0",
    "18.2",
    "20",
    "21.0",
    "21.2",
    "22.0",
    "22.2",
    "24",
)


def write_published(network, folder, stacks=("",), prefix="") -> None:
    """Save the weights of a network in the format of the authors."""
    folder.mkdir(exist_ok=True)
    parts = [network] if stacks == ("",) else network.stacks
    for stack, name in zip(parts, stacks, strict=True):
        for number, level in enumerate(reversed(stack.levels), start=1):
            for part, layers in (("encoder", ENCODER), ("decoder", DECODER)):
                called = called_layers(getattr(level, part), stack, part)
                state = {
                    f"{prefix}layer{layer}.{kind}": value
                    for layer, module in zip(layers, called, strict=True)
                    for kind, value in module.state_dict().items()
                }
                torch.save(state, folder / f"{part}_{name}lv{number}.pkl")


def called_layers(module, stack, part) -> list:
    called, hooks = [], []
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            hooks.append(layer.register_forward_hook(lambda layer, *_: called.append(layer)))
    with torch.no_grad():
        module(torch.zeros(1, 8, 8, 3 if part == "encoder" else stack.levels[0].encoder.down[-1].out_channels), {})
    for hook in hooks:
        hook.remove()
    return called


@pytest.mark.parametrize("levels, prefix", [(3, ""), (4, "module.")])
def test_files_of_the_authors_are_loaded(levels, prefix, tmp_path):
    torch.manual_seed(0)
    published, network = (DMPHN(levels, (2, 3, 4)) for _ in range(2))
    write_published(published, tmp_path, prefix=prefix)
    name = load_published(network, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(published.parameters(), network.parameters(), strict=True))
    assert len(name) == 12 and load_published(network, tmp_path) == name
    write_published(DMPHN(levels, (2, 3, 4)), tmp_path)
    assert load_published(network, tmp_path) != name


def test_files_of_a_stack_are_loaded(tmp_path):
    published, network = (StackedDMPHN(2, 3, (2, 3, 4)) for _ in range(2))
    write_published(published, tmp_path, ("s1_", "s2_"))
    load_published(network, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(published.parameters(), network.parameters(), strict=True))


class Bomb:
    def __reduce__(self):
        import os

        return os.system, ("touch exploded",)


def test_invalid_files_are_refused_and_change_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = DMPHN(4, (2, 3, 4))
    before = [p.clone() for p in network.parameters()]
    write_published(DMPHN(3, (2, 3, 4)), tmp_path / "three")
    write_published(DMPHN(4, (2, 3, 5)), tmp_path / "wide")
    for case, content in {
        "bomb": pickle.dumps(Bomb(), protocol=2),
        "new bomb": pickle.dumps(Bomb()),
        "text": b"<!DOCTYPE html>",
        "empty": b"",
        "list": None,
        "short": None,
        "long": None,
    }.items():
        write_published(DMPHN(4, (2, 3, 4)), tmp_path / case)
        last = tmp_path / case / "decoder_lv1.pkl"
        if content is not None:
            last.write_bytes(content)
            continue
        state = torch.load(last, weights_only=True)
        changed = {"list": [1], "short": dict(list(state.items())[:-1]), "long": state | {"more": torch.zeros(1)}}
        torch.save(changed[case], last)
    messages = {
        "nowhere": "no such folder",
        "three": r"encoder_lv4\.pkl: no such file",
        "wide": r"encoder_lv1\.pkl: layer9\.weight is \(5, 3, 3, 3\) but \(4, 3, 3, 3\) in the network",
        "bomb": r"decoder_lv1\.pkl: not loaded",
        "new bomb": r"decoder_lv1\.pkl: not loaded",
        "text": r"decoder_lv1\.pkl: not loaded",
        "empty": r"decoder_lv1\.pkl: not loaded",
        "list": r"decoder_lv1\.pkl: not the weights",
        "short": r"decoder_lv1\.pkl: layer24\.bias is missing",
        "long": r"decoder_lv1\.pkl: contains 31 tensors, but the network has 30",
    }
    for case, message in messages.items():
        with pytest.raises(UserError, match=message):
            load_published(network, tmp_path / case)
    assert not (tmp_path / "exploded").exists()
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    for other in (SRN((2, 3, 4)), DMPHN(4, (2, 3, 4), progressive=True), DMPHN(3, (2, 3))):
        with pytest.raises(UserError, match="no weights are published"):
            load_published(other, tmp_path / "three")


def small_restormer() -> Restormer:
    return Restormer(8, (1, 1, 1, 1), 1)


def wrapped(state: dict, wrapper: str) -> dict:
    """Return the content of a file as an author's program writes it."""
    parallel = {f"module.{name}": value for name, value in state.items()}
    return {
        "bare": state,
        "MIMO-UNet": {"model": state},
        "MIMO-UNet, training": {"model": state, "optimizer": {"state": {}}, "scheduler": {"last_epoch": 3}, "epoch": 3},
        "MPRNet": {"epoch": 3, "state_dict": parallel, "optimizer": {"state": {}, "param_groups": []}},
        "Restormer": {"params": state},
        "Uformer": {"state_dict": parallel, "epoch": 3},
        "MSCNN": {"G": state},
        "DeblurGAN-v2": {"model": parallel},
    }[wrapper]


@pytest.mark.parametrize(
    "wrapper", ["bare", "MIMO-UNet", "MIMO-UNet, training", "MPRNet", "Restormer", "Uformer", "MSCNN", "DeblurGAN-v2"]
)
def test_the_file_of_every_author_is_loaded(wrapper, tmp_path):
    torch.manual_seed(0)
    published, network = small_restormer(), small_restormer()
    torch.save(wrapped(published.state_dict(), wrapper), tmp_path / "weights.pth")
    digest = load_published(network, tmp_path / "weights.pth")
    assert all(torch.equal(a, b) for a, b in zip(published.parameters(), network.parameters(), strict=True))
    assert digest == hashlib.sha256((tmp_path / "weights.pth").read_bytes()).hexdigest()[:12]


def test_a_value_that_a_file_stores_under_several_names_must_be_one(tmp_path):
    network = MPRNet(8, 4, 8, 1)
    state = network.state_dict() | {"shallow_feat2.1.body.1.weight": torch.ones(1)}
    torch.save({"state_dict": state}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"shallow_feat1.*body\.1\.weight and shallow_feat2.*body\.1\.weight differ"):
        load_published(network, tmp_path / "weights.pth")


def test_a_wrong_file_changes_nothing_and_is_explained(tmp_path):
    network = small_restormer()
    before, state = [p.clone() for p in network.parameters()], network.state_dict()
    (tmp_path / "folder").mkdir()
    (tmp_path / "bomb").write_bytes(pickle.dumps({"params": Bomb()}, protocol=2))
    for case, content in {
        "numbers": {"params": {"epoch": 3}},
        "checkpoint": {"sapnet": {}, "state_dict": state},
        "short": dict(list(state.items())[:-1]),
        "long": state | {"a": torch.ones(1)},
        "other": MIMOUNet(1, 8).state_dict(),
        "wide": Restormer(16, (1, 1, 1, 1), 1).state_dict(),
    }.items():
        torch.save(content, tmp_path / case)
    messages = {
        "nothing": "nothing: no such file",
        "folder": "a folder; give the file",
        "bomb": "not loaded, because it is damaged",
        "numbers": "not the weights of a network",
        "checkpoint": "a checkpoint of sapnet train; use checkpoint=",
        "short": r"not the weights of this Restormer: the file lacks 1 of the network's tensors, output\.weight\.$",
        "long": r"not the weights of this Restormer: the network lacks 1 of the file's tensors, a\.$",
        "other": r"lacks \d+ .*, patch_embed\.proj\.weight, .*\.\.\., and the network lacks \d+ .*, Encoder\.0\.",
        "wide": r"patch_embed\.proj\.weight is \(16, 3, 3, 3\) but \(8, 3, 3, 3\) in the network; set the sizes",
    }
    for case, message in messages.items():
        with pytest.raises(UserError, match=message):
            load_published(network, tmp_path / case)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


class Counting(torch.nn.Module):
    """A network whose normalisation counts its batches."""

    requirements = InputRequirements()

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)


def test_files_of_early_versions_have_no_counters_of_batches(tmp_path):
    network = Counting()
    state = {name: torch.rand_like(value) for name, value in network.state_dict().items() if value.is_floating_point()}
    torch.save(state, tmp_path / "weights.pth")
    load_published(network, tmp_path / "weights.pth")
    assert all(torch.equal(network.state_dict()[name], value) for name, value in state.items())


def test_evaluation_with_published_weights(tmp_path):
    """Result lines state the network and the weights, and belong to the loaded network."""
    published = DMPHN(3, (2, 3, 4))
    write_published(published, tmp_path / "weights")
    data = OmegaConf.create(
        {"_target_": "sapnet.data.generated.SyntheticData", "train": 1, "val": 1, "test": 2, "size": 32, "crop": 16}
    )
    model = OmegaConf.create({"_target_": "sapnet.models.dmphn.DMPHN", "levels": 3, "channels": [2, 3, 4]})
    summary = evaluate_published(model, tmp_path / "weights", data, tmp_path)
    module = hydra.utils.instantiate(data)
    module.setup("test")
    with torch.no_grad():
        expected = [psnr(published(x["blurred"][None])[-1][0], x["sharp"]).item() for x in module.whole_images("test")]
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert summary["images"] == 2
    assert [json.loads(line)["stage_psnr"][-1] for line in lines] == pytest.approx(expected, abs=1e-3)
    digest = load_published(DMPHN(3, (2, 3, 4)), tmp_path / "weights")
    assert all(f'"published_weights": "{digest}"' in line and '"model": "DMPHN"' in line for line in lines)


@pytest.mark.parametrize(
    "model", ["dmphn_1_2_4", "dmphn_1_2_4_8", "dmphn_stack4", "dmphn_nu", "srn", "srn_nolstm", "srn_nu"]
)
@pytest.mark.parametrize("sampling", ["uniform_network", "nu"])
def test_every_config_builds_a_network(model, sampling):
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        config = compose("train", [f"network={model}", f"sampling={sampling}", "network.channels=[2,3,4]"])
    if sampling == "nu" and not model.endswith("_nu"):
        with pytest.raises(InstantiationException, match="sampling=uniform_network"):
            build_module(config)
        return
    network = build_module(config).network
    stages = {"dmphn_nu": 3, "srn_nu": 2}[model] if sampling == "nu" else 0
    assert len(getattr(network, "samplers", ())) == stages


@pytest.mark.slow
@pytest.mark.parametrize("name, expected", [("000001", 30.77), ("000014", 29.79)])
def test_outputs_equal_those_of_the_authors(name, expected, real_data):
    """Outputs differ by at most one grey level; the authors truncate to 8 bits, and the expected PSNR is rounded."""
    folder = real_data / "dmphn_published"
    if not folder.is_dir():
        pytest.skip(f"no published weights at {folder}")
    scene = real_data / "GOPRO_Large" / "test" / "GOPR0384_11_00"
    blurred, sharp = (read_image(scene / kind / f"{name}.png") for kind in ("blur", "sharp"))
    published = read_image(folder / "DMPHN_1_2_4_outputs" / f"{name}.png").astype(int)
    network = DMPHN(3).eval()
    load_published(network, folder / "DMPHN_1_2_4")
    with torch.no_grad():
        levels = network(to_tensor(blurred)[None])[-1][0].permute(1, 2, 0).numpy() * 255
    cut, rounded = (np.clip(x, 0, 255).astype(int) for x in (levels, np.round(levels)))
    assert np.abs(cut - published).max() <= 1 and np.abs(rounded - published).max() <= 1
    assert (cut != published).mean() < 1e-4
    psnr = 10 * np.log10(255**2 / np.mean((rounded - sharp.astype(float)) ** 2))
    assert psnr == pytest.approx(expected, abs=0.006)
