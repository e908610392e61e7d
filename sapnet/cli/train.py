"""`sapnet train`: train a network, then evaluate it on the test images."""

import logging
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only

from sapnet.checkpoints.architecture import averaged_weights
from sapnet.checkpoints.files import METADATA, load_checkpoint
from sapnet.cli.hydra_command import hydra_command
from sapnet.evaluation.checkpoints import best_validation, evaluated_checkpoint
from sapnet.evaluation.network_evaluation import evaluate
from sapnet.evaluation.networks import open_checkpoint
from sapnet.evaluation.run_summary import write_summary
from sapnet.evaluation.study_runner import chosen_study, report_study
from sapnet.evaluation.summary import as_table
from sapnet.models.adaptive_network import AdaptiveNetwork
from sapnet.training.fitting import fit
from sapnet.training.loggers.results import log_checkpoint, log_results, log_test_images
from sapnet.training.loggers.run import open_loggers

log = logging.getLogger(__name__)


@hydra_command("train")
def main(config: DictConfig) -> float:
    """Train, evaluate, print the table.

    Returns:
        What a sweeper maximises: the mean PSNR of the test images; with `evaluate=false` the best validation PSNR.
    """
    start, folder, study = time.monotonic(), Path(HydraConfig.get().runtime.output_dir), chosen_study(config.study)
    with open_loggers(config, folder) as loggers:
        last = fit(config, folder, loggers)
        log.info("checkpoint: %s", last)
        best = last.with_name("best.ckpt") if last.with_name("best.ckpt").is_file() else last
        checkpoint, test = best, None
        if config.evaluate:
            checkpoint = evaluated_checkpoint(last.parent, config.evaluate_checkpoint)
            test = evaluate(checkpoint, config.data, folder)
            log.info("results: %s\n%s", folder / "results.jsonl", as_table(test))
        metadata = load_checkpoint(last)[METADATA]
        validation, step = metadata.get("validation"), metadata["generator_steps"]
        if rank_zero_only.rank == 0:
            write_summary(folder, checkpoint, time.monotonic() - start, test, validation)
        log_results(loggers, test, validation, step)
        log_checkpoint(loggers, best, validation)
        if test is None:
            return best_validation(last)
        network, _ = open_checkpoint(checkpoint)
        log_test_images(loggers, network, config.data, step)
    if averaged_weights(load_checkpoint(checkpoint)) is not None:
        averaged = evaluate(checkpoint, config.data, folder / "ema", ema=True)
        log.info("results of the averaged weights: %s\n%s", folder / "ema" / "results.jsonl", as_table(averaged))
    if study and isinstance(network, AdaptiveNetwork):
        report_study(study, network, config.data, folder)
    return test["stage_psnr"][-1]
