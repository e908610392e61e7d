"""Demo: train a small network with its policy, evaluate both and draw the results."""

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import hydra
import numpy as np
import torch
from omegaconf import DictConfig

from sapnet.checkpoints.network import network_from_checkpoint
from sapnet.data.images import write_image
from sapnet.evaluation import point_study
from sapnet.evaluation.checkpoints import evaluated_checkpoint
from sapnet.evaluation.network_evaluation import evaluate
from sapnet.evaluation.pictures import Picture, heat_map, panel, with_points
from sapnet.evaluation.run_summary import write_summary
from sapnet.evaluation.study_runner import study_policy
from sapnet.evaluation.summary import as_table
from sapnet.models.adaptive_network import AdaptiveNetwork, Trace
from sapnet.training.assemble import network_name
from sapnet.training.fitting import fit
from sapnet.training.run_lock import lock_run_folder
from sapnet.training.timing import seconds_per_step

log = logging.getLogger(__name__)


def run_demo(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Train, evaluate and draw; write `demo.png` and `summary.json`, and return the summary.

    Args:
        config: Config of a training with `training_seconds` and `picture_scenes`. Its `steps` are reduced to the number
            that can be trained in that time.
        folder: Folder of the run. The results of an earlier demo are removed.
    """
    start = time.perf_counter()
    # The run must neither continue an earlier demo nor mix with its results.
    with lock_run_folder(folder):
        for stale in ("checkpoints", "panels"):
            shutil.rmtree(folder / stale, ignore_errors=True)
        for stale in ("results.jsonl", "metrics.csv"):
            (folder / stale).unlink(missing_ok=True)

    step = seconds_per_step(config)
    config.steps = max(1, min(config.steps, int(config.training_seconds / step)))
    log.info("%d steps of %.3f s: about %.0f min", config.steps, step, config.steps * step / 60)
    checkpoint = evaluated_checkpoint(fit(config, folder).parent, config.evaluate_checkpoint)

    summary = evaluate(checkpoint, config.data, folder)
    network = cast(AdaptiveNetwork, network_from_checkpoint(checkpoint)[0])
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
    }
    return write_summary(folder, checkpoint, time.perf_counter() - start, summary)


def as_text(summary: Mapping[str, Any]) -> str:
    """Return the result for a terminal: the table, what the points are worth, and what the policy detects."""
    agreement = (
        f"AUC of the policy's map as a detector of the quarter of the pixels with the largest error:"
        f" {summary['policy_auc_error']:.2f}; with the largest blur extent: {summary['policy_auc_extent']:.2f}."
    )
    return "\n".join([as_table(summary), summary["policy"]["worth"]["conclusion"], agreement])


@torch.no_grad()
def draw(network: AdaptiveNetwork, data: DictConfig, scenes: int) -> tuple[Picture, float]:
    """Draw the first test scenes, and return the share of canvas positions that the sampled stages refined there."""
    module = hydra.utils.instantiate(data)
    module.setup("test")
    items = module.whole_images("test")
    rows, shares = [], []
    for i in range(min(scenes, len(items))):
        walk = network.trace(items[i]["blurred"][None], mode="top")
        rows.append(_row(items[i], walk))
        shares += [s.mask(r).float().mean().item() for s in walk.sampled_points.values() for r in s.points]
    stages = [f"stage {k}" for k in range(1, len(walk.outputs) + 1)]
    points = [f"points of stage {k + 1}" for k in walk.sampled_points]
    return panel(rows, ["blurred", *stages, "sharp", "blur extent", *points]), float(np.mean(shares))


def _row(item: Mapping[str, Any], walk: Trace) -> list:
    outputs = [output[0] for output in walk.outputs]
    shown = [with_points(outputs[k - 1], s.mask(min(s.points))[0]) for k, s in walk.sampled_points.items()]
    return [item["blurred"], *outputs, item["sharp"], heat_map(item["extent"]), *shown]


def worth_of_points(network: AdaptiveNetwork, data: DictConfig) -> dict[str, Any]:
    """Measure what the network's points are worth on the test scenes, as ``study=points`` does."""
    module = hydra.utils.instantiate(data)
    module.setup("test")
    return point_study.study(network, module.whole_images("test"), torch.device("cpu"))


def mean_auc(agreement: Sequence[Mapping[str, Any]], truth: str) -> float:
    """Return the mean over stages of the AUC of the policy's map as a detector of a truth."""
    return float(np.mean([row["auc"] for row in agreement if (row["score"], row["truth"]) == ("map", truth)]))
