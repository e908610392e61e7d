"""`make demo`, `python -m sapnet.demo`: train a small network and its policy, measure both, draw what they do."""

from sapnet import interrupts

if __name__ == "__main__":
    interrupts.install()  # before the imports below, which take seconds

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
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
from sapnet.evaluate import evaluate
from sapnet.evaluation import point_study
from sapnet.evaluation.checkpoints import evaluated_checkpoint
from sapnet.evaluation.pictures import Picture, heat_map, panel, with_points
from sapnet.evaluation.runner import as_table
from sapnet.evaluation.studies import study_policy
from sapnet.models.adaptive import AdaptiveNetwork, Walk
from sapnet.provenance import write_json
from sapnet.train import fit
from sapnet.training.assemble import build_module, network_name
from sapnet.training.checkpoints import network_from_checkpoint
from sapnet.training.saving import only_training

log = logging.getLogger(__name__)

#: Steps that are timed to foresee the length of the training; the first of them are not counted.
WARM_UP, TIMED = 3, 8


def seconds_per_step(config: DictConfig) -> float:
    """Time a few training steps of each phase with a network that is thrown away, and return the mean of all steps."""
    pl.seed_everything(config.seed, verbose=False)
    data = hydra.utils.instantiate(config.data, train=4 * config.data.batch, cache=True)
    data.setup("fit")
    module = build_module(config).train()
    optimizers, _ = module.configure_optimizers()
    seconds = 0.0
    for phase in module.phases:
        # The middle, where points are drawn and the policy learns.
        module.generator_steps, marks = phase.begin + phase.steps // 2, []
        batches = (batch for _ in range(WARM_UP + TIMED) for batch in data.train_dataloader())
        for batch in islice(batches, WARM_UP + TIMED):
            marks.append(time.perf_counter())
            loss, _ = module.losses(batch)
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        seconds += (time.perf_counter() - marks[WARM_UP]) / TIMED * phase.steps / config.steps
    return seconds


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


def worth_of_points(network: AdaptiveNetwork, data: DictConfig) -> dict[str, Any]:
    """Measure what the network's points are worth on the test scenes, as ``study=points`` does."""
    module = hydra.utils.instantiate(data)
    module.setup("test")
    return point_study.study(network, module.whole_images("test"), torch.device("cpu"))


def mean_auc(agreement: Sequence[Mapping[str, Any]], truth: str) -> float:
    """Return the mean over stages of the AUC of the policy's map as a detector of a truth."""
    return float(np.mean([row["auc"] for row in agreement if (row["score"], row["truth"]) == ("map", truth)]))


def _found(summary: Mapping[str, Any]) -> str:
    return (
        f"AUC of the policy's map as a detector of the quarter of the pixels with the largest error:"
        f" {summary['policy_auc_error']:.2f}; with the largest blur extent: {summary['policy_auc_extent']:.2f}."
    )


@entry_point("demo")
def main(config: DictConfig) -> float:
    """Run the demo; the return value is the gain in dB."""
    start = time.perf_counter()
    folder = Path(HydraConfig.get().runtime.output_dir)
    # Of an earlier demo; the run must neither go on from it nor mix with its results.
    with only_training(folder):
        for stale in ("checkpoints", "panels"):
            shutil.rmtree(folder / stale, ignore_errors=True)
        for stale in ("results.jsonl", "metrics.csv"):
            (folder / stale).unlink(missing_ok=True)

    step = seconds_per_step(config)
    config.steps = max(1, min(config.steps, int(config.training_seconds / step)))
    log.info("%d steps of %.3f s: about %.0f min", config.steps, step, config.steps * step / 60)
    checkpoint = evaluated_checkpoint(fit(config, folder).parent, config.evaluate_checkpoint)

    summary = evaluate(checkpoint, config.data, folder)
    network, _ = network_from_checkpoint(checkpoint)
    agreement = study_policy(network, config.data, folder, controls=())["agreement"]
    worth = worth_of_points(network, config.data)
    picture, share = draw(network, config.data, config.picture_scenes)
    write_image(folder / "demo.png", picture)
    summary |= {
        "model": network_name(config),
        "sampled_fraction": share,
        "points_db": {name: row["psnr"] for name, row in worth["points_db"].items()},
        "policy_auc_error": mean_auc(agreement, "error"),
        "policy_auc_extent": mean_auc(agreement, "extent"),
        "policy": {"agreement": agreement, "worth": worth},
        "steps": config.steps,
        "run_seconds": round(time.perf_counter() - start, 1),
    }
    write_json(folder / "summary.json", summary)
    log.info("%s\n%s\n%s", as_table(summary), worth["words"], _found(summary))
    log.info("the whole run: %.0f s", summary["run_seconds"])
    log.info("picture: %s   figures: %s", folder / "demo.png", folder / "summary.json")
    return summary["gain_db"]


if __name__ == "__main__":
    main()
