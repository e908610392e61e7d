"""`make demo`, `python -m sapnet.demo`: train a small network, measure it on held-out scenes, draw what it does."""

import json
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor

from sapnet.data.images import write_image
from sapnet.entry import entry_point
from sapnet.evaluate import evaluate
from sapnet.evaluation.pictures import heat_map, panel
from sapnet.evaluation.runner import as_table
from sapnet.files import write_atomically
from sapnet.train import fit
from sapnet.training.assemble import build_module

log = logging.getLogger(__name__)

#: Steps that are timed to foresee the length of the training; the first of them are not counted.
WARM_UP, TIMED = 3, 8


def seconds_per_step(config: DictConfig) -> float:
    """Time a few training steps of a network that is thrown away."""
    pl.seed_everything(config.seed, verbose=False)
    data = hydra.utils.instantiate(config.data, train=4 * config.data.batch, cache=True)
    data.setup("fit")
    module = build_module(config)
    (optimizer,), _ = module.configure_optimizers()
    marks = []
    batches = (batch for _ in range(WARM_UP + TIMED) for batch in data.train_dataloader())
    for batch in islice(batches, WARM_UP + TIMED):
        marks.append(time.perf_counter())
        loss, _ = module.losses(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - marks[WARM_UP]) / TIMED


@entry_point("demo")
def main(config: DictConfig) -> float:
    """Run the demo; the return value is the gain in dB."""
    start = time.perf_counter()
    folder = Path(HydraConfig.get().runtime.output_dir)
    # Of an earlier demo; the run must neither go on from it nor mix with its results.
    for stale in ("checkpoints", "logs", "panels"):
        shutil.rmtree(folder / stale, ignore_errors=True)
    (folder / "results.jsonl").unlink(missing_ok=True)

    step = seconds_per_step(config)
    config.steps = max(1, min(config.steps, int(config.training_seconds / step)))
    log.info("%d steps of %.3f s: about %.0f min", config.steps, step, config.steps * step / 60)
    checkpoint = fit(config, folder)

    rows: list[list[Tensor]] = []

    def keep(item: Mapping[str, Any], images: Sequence[Tensor]) -> None:
        if len(rows) < config.picture_scenes:
            rows.append([item["blurred"], *images, item["sharp"], heat_map(item["extent"])])

    summary = evaluate(checkpoint, config.data, folder, keep)
    stages = [f"stage {k}" for k in range(1, len(summary["stage_psnr"]) + 1)]
    write_image(folder / "demo.png", panel(rows, ["blurred", *stages, "sharp", "blur extent"]))
    summary |= {"seconds": round(time.perf_counter() - start, 1), "steps": config.steps}
    _write_json(folder / "summary.json", summary)
    log.info("%s\npicture: %s   figures: %s", as_table(summary), folder / "demo.png", folder / "summary.json")
    return summary["gain_db"]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_atomically(path, (json.dumps(content, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
