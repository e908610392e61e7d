"""`sapnet train`: train a network, then evaluate it on the test images."""

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sapnet.checkpoints.architecture import averaged_weights
from sapnet.checkpoints.files import load_checkpoint
from sapnet.cli.hydra_command import hydra_command
from sapnet.evaluation.checkpoints import best_validation, evaluated_checkpoint
from sapnet.evaluation.network_evaluation import evaluate
from sapnet.evaluation.networks import open_checkpoint
from sapnet.evaluation.study_runner import chosen_study, report_study
from sapnet.evaluation.summary import as_table
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.training.fitting import fit

log = logging.getLogger(__name__)


@hydra_command("train")
def main(config: DictConfig) -> float:
    """Train, evaluate, print the table.

    Returns:
        What a sweeper maximises: the mean PSNR of the test images; with `evaluate=false` the best validation PSNR.
    """
    folder, study = Path(HydraConfig.get().runtime.output_dir), chosen_study(config.study)
    last = fit(config, folder)
    log.info("checkpoint: %s", last)
    if not config.evaluate:
        return best_validation(last)
    checkpoint = evaluated_checkpoint(last.parent, config.evaluate_checkpoint)
    summary = evaluate(checkpoint, config.data, folder)
    log.info("results: %s\n%s", folder / "results.jsonl", as_table(summary))
    if averaged_weights(load_checkpoint(checkpoint)) is not None:
        averaged = evaluate(checkpoint, config.data, folder / "ema", ema=True)
        log.info("results of the averaged weights: %s\n%s", folder / "ema" / "results.jsonl", as_table(averaged))
    network, _ = open_checkpoint(checkpoint)
    if study and isinstance(network, AdaptiveNetwork):
        report_study(study, network, config.data, folder)
    return summary["stage_psnr"][-1]
