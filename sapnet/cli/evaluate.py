"""`sapnet evaluate`: measure a checkpoint, or published weights, on the test images of a data set."""

import logging
import os
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sapnet.cli.hydra_command import hydra_command
from sapnet.errors import UserError
from sapnet.evaluation.network_evaluation import evaluate, evaluate_published
from sapnet.evaluation.networks import check_choice, open_checkpoint
from sapnet.evaluation.run_summary import write_summary
from sapnet.evaluation.study_runner import chosen_study, report_study
from sapnet.evaluation.summary import as_table
from sapnet.models.adaptive_network import AdaptiveNetwork

log = logging.getLogger(__name__)


@hydra_command("evaluate")
def main(config: DictConfig) -> float:
    """Evaluate and print the table; the return value is the mean PSNR."""
    check_choice(config)
    _check_folder_shared()
    start, folder = time.monotonic(), Path(HydraConfig.get().runtime.output_dir)
    first_process = os.environ.get("RANK", "0") == "0"

    if config.weights is not None:
        name = network_name()
        weights, save = Path(config.weights), config.save_images
        summary = evaluate_published(config.network, weights, config.data, folder, save_images=save, name=name)
    else:
        choice = {**config.sampling, "window": config.window, "ema": config.ema}
        summary = evaluate(Path(config.checkpoint), config.data, folder, config.save_images, **choice)
    log.info("results: %s\n%s", folder / "results.jsonl", as_table(summary))
    if first_process:
        checkpoint = Path(config.checkpoint) if config.weights is None else None
        write_summary(folder, checkpoint, time.monotonic() - start, summary)
    study = chosen_study(config.study)
    if study and first_process:
        network, _ = open_checkpoint(Path(config.checkpoint), **choice)
        if not isinstance(network, AdaptiveNetwork):
            raise UserError("study: this checkpoint does not sample; leave it out.")
        report_study(study, network, config.data, folder)
    return summary["stage_psnr"][-1]


def network_name() -> str:
    """Return the overrides that choose a published network, such as `network=mimo_unet network.dropout=0.2`.

    Images with results of the same name and weights are not measured again, and the settings change results.
    """
    hydra_config = HydraConfig.get()
    settings = [override for override in hydra_config.overrides.task if override.startswith("network.")]
    return " ".join([f"network={hydra_config.runtime.choices['network']}", *settings])


def _check_folder_shared() -> None:
    # By default it is named after the time, which differs between processes.
    shared = int(os.environ.get("WORLD_SIZE", 1)) > 1
    if shared and not any(argument.startswith("hydra.run.dir=") for argument in HydraConfig.get().overrides.hydra):
        raise UserError("several processes share an evaluation by its folder: add hydra.run.dir=FOLDER.")
