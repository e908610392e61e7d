"""`make demo`, `python -m sapnet.demo`: train a small network and its policy, measure both, draw what they do."""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import pytorch_lightning as pl
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sapnet.data.images import write_image
from sapnet.entry import entry_point
from sapnet.evaluate import evaluate, study_policy
from sapnet.evaluation.pictures import Picture, heat_map, panel, with_points
from sapnet.evaluation.policy_study import as_markdown
from sapnet.evaluation.runner import as_table
from sapnet.files import write_atomically
from sapnet.models.adaptive import AdaptiveNetwork, Walk
from sapnet.train import fit
from sapnet.training.assemble import build_module
from sapnet.training.checkpoints import network_from_checkpoint

log = logging.getLogger(__name__)

#: Steps that are timed to foresee the length of the training; the first of them are not counted.
WARM_UP, TIMED = 3, 8


def seconds_per_step(config: DictConfig) -> float:
    """Time a few training steps of a network that is thrown away."""
    pl.seed_everything(config.seed, verbose=False)
    data = hydra.utils.instantiate(config.data, train=4 * config.data.batch, cache=True)
    data.setup("fit")
    module = build_module(config).train()
    optimizers, _ = module.configure_optimizers()
    marks = []
    batches = (batch for _ in range(WARM_UP + TIMED) for batch in data.train_dataloader())
    for batch in islice(batches, WARM_UP + TIMED):
        marks.append(time.perf_counter())
        loss, _ = module.losses(batch)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return (time.perf_counter() - marks[WARM_UP]) / TIMED


@torch.no_grad()
def draw(network: AdaptiveNetwork, data: DictConfig, scenes: int) -> tuple[Picture, float]:
    """Draw the first test scenes, and return the share of canvas positions that the sampled stages refined there."""
    module = hydra.utils.instantiate(data)
    module.setup("test")
    items = module.whole_images("test")
    rows, shares = [], []
    for i in range(min(scenes, len(items))):
        walk = network.walk(items[i]["blurred"][None], mode="top")
        rows.append(_row(items[i], walk))
        shares += [s.mask(r).float().mean().item() for s in walk.samplings.values() for r in s.points]
    stages = [f"stage {k}" for k in range(1, len(walk.outputs) + 1)]
    points = [f"points of stage {k + 1}" for k in walk.samplings]
    return panel(rows, ["blurred", *stages, "sharp", "blur extent", *points]), float(np.mean(shares))


def _row(item: Mapping[str, Any], walk: Walk) -> list:
    outputs = [output[0] for output in walk.outputs]
    shown = [with_points(outputs[k - 1], s.mask(min(s.points))[0]) for k, s in walk.samplings.items()]
    return [item["blurred"], *outputs, item["sharp"], heat_map(item["extent"]), *shown]


@entry_point("demo")
def main(config: DictConfig) -> float:
    """Run the demo; the return value is the gain in dB."""
    start = time.perf_counter()
    folder = Path(HydraConfig.get().runtime.output_dir)
    # Of an earlier demo; the run must neither go on from it nor mix with its results.
    for stale in ("checkpoints", "panels"):
        shutil.rmtree(folder / stale, ignore_errors=True)
    for stale in ("results.jsonl", "metrics.csv"):
        (folder / stale).unlink(missing_ok=True)

    step = seconds_per_step(config)
    config.steps = max(1, min(config.steps, int(config.training_seconds / step)))
    log.info("%d steps of %.3f s: about %.0f min", config.steps, step, config.steps * step / 60)
    checkpoint = fit(config, folder)

    summary = evaluate(checkpoint, config.data, folder)
    network, _ = network_from_checkpoint(checkpoint)
    found = study_policy(network, config.data, folder)
    picture, share = draw(network, config.data, config.picture_scenes)
    write_image(folder / "demo.png", picture)
    blur = [row for row in found["agreement"] if row["score"] == "map" and row["truth"] == "extent"]
    summary |= {
        "model": "nu",
        "sampled_fraction": share,
        "policy_auc_blur": float(np.mean([row["auc"] for row in blur])),
        "policy": found,
        "steps": config.steps,
        "seconds": round(time.perf_counter() - start, 1),
    }
    write_atomically(folder / "summary.json", (json.dumps(summary, indent=2) + "\n").encode())
    log.info("what the policy learned:\n%s", as_markdown(found, network.sampler))
    log.info("%s\npicture: %s   figures: %s", as_table(summary), folder / "demo.png", folder / "summary.json")
    return summary["gain_db"]


if __name__ == "__main__":
    main()
