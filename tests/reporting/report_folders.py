"""Folders of a run and of a study as the commands write them, without a training."""

import csv
import json
from pathlib import Path

import hydra
import torch
from omegaconf import OmegaConf

from sapnet.evaluation.network_evaluation import evaluate
from sapnet.provenance import provenance
from tests.checkpoints.writing import write_checkpoint

NETWORK = {
    "_target_": "sapnet.models.adaptive_network.AdaptiveNetwork",
    "generator": {
        "_target_": "sapnet.models.sapnet.SAPNet",
        "stem": 4,
        "channels": [4, 4, 4],
        "encoder_blocks": 1,
        "decoder_blocks": 1,
        "stages": 2,
        "sampled": True,
    },
    "policy_width": 4,
}
DATA = {"_target_": "sapnet.data.generated.SyntheticData", "name": "synthetic", "distribution": "synthetic"}
DATA |= {"train": 1, "val": 1, "test": 4, "size": 48, "gamma": 2.2, "scene_seed": 0, "crop": 32, "batch": 1}
DATA |= {"workers": 0, "cache": True}
METRICS = "generator_steps,train/loss,val/psnr,val/psnr_input\n2,,27.5,28.25\n3,0.03,,\n3,,27.75,28.25\n"


def write_run(folder: Path, seed: int = 0) -> Path:
    """Write a run folder with a checkpoint, results on four test images, curves and a config."""
    torch.manual_seed(seed)
    network = hydra.utils.instantiate(NETWORK)
    for parameter in network.parameters():
        # A new network returns its input.
        torch.nn.init.normal_(parameter, std=0.1)
    checkpoint = folder / "checkpoints" / "best.ckpt"
    checkpoint.parent.mkdir(parents=True)
    write_checkpoint(checkpoint, network, NETWORK)
    config = OmegaConf.create({"data": DATA})
    summary = evaluate(checkpoint, config.data, folder)
    validation = {"psnr_best": 27.75, "step_best": 3}
    content = {"checkpoint": "checkpoints/best.ckpt", **summary, "validation": validation, "provenance": provenance()}
    (folder / "summary.json").write_text(json.dumps(content))
    (folder / "metrics.csv").write_text(METRICS)
    OmegaConf.save(config, folder / "config.yaml")
    return folder


def write_study(folder: Path) -> Path:
    """Write the rendered table of a study with a reference, a gain, a gain of one image and a row without results."""
    folder.mkdir(parents=True)
    gain = {"gain_db": 0.25, "gain_ci95_low_db": 0.125, "gain_ci95_high_db": 0.5}
    infinite = {"gain_db": -0.5, "gain_ci95_low_db": float("-inf"), "gain_ci95_high_db": float("inf")}
    lines = [
        {"row": "U", "psnr_db": 30.0, "ssim_matlab3d": 0.9, "images": 40, "seeds": 3},
        {"row": "NU", "psnr_db": 30.25, "ssim_matlab3d": 0.91, "images": 40, "seeds": 3, **gain},
        {"row": "one", "psnr_db": 29.5, "ssim_matlab3d": 0.89, "images": 1, "seeds": 1, **infinite},
        {"row": "open"},
    ]
    (folder / "table.json").write_text(json.dumps({"lines": lines, "origin": {"Measured with": "`a & b`"}}))
    with open(folder / "runs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ("row", "seed", "psnr_db", "stage1_gain_db", "runtime_s", "commit"))
        writer.writeheader()
        writer.writerow(dict(row="U", seed=0, psnr_db=30.0, stage1_gain_db=0.5, runtime_s=0.1, commit="0123456"))
    return folder
