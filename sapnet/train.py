"""`sapnet-train`, `python -m sapnet.train`: train a network, then evaluate it on the test images."""

from sapnet import interrupts

if __name__ == "__main__":
    interrupts.install()  # before the imports below, which take seconds

import logging
from pathlib import Path

import hydra
import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from sapnet.entry import entry_point
from sapnet.evaluate import chosen_study, evaluate, open_checkpoint, report_study
from sapnet.evaluation.runner import as_table
from sapnet.models.adaptive import AdaptiveNetwork
from sapnet.training.assemble import build_module, build_trainer
from sapnet.training.checkpoints import check_same_architecture, resume_from
from sapnet.training.saving import interruptible, only_training
from sapnet.training.tracking import tracked

log = logging.getLogger(__name__)


def fit(config: DictConfig, folder: Path) -> Path:
    """Train what the config describes and return the last checkpoint, below ``folder/checkpoints``.

    Raises:
        UserError: The data, the checkpoint to go on from, or a value of the config cannot be used; or another process
            trains in this folder.
        Interrupted: A signal came; the last checkpoint is saved.
    """
    with only_training(folder):
        return _fit(config, folder)


def _fit(config: DictConfig, folder: Path) -> Path:
    pl.seed_everything(config.seed, workers=True, verbose=False)
    folder.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(config, folder / "config.yaml", resolve=True)
    data = hydra.utils.instantiate(config.data)
    # First of all, since missing or broken data is the most likely mistake.
    data.setup("fit")
    module = build_module(config)
    checkpoint = config.checkpoint or resume_from(folder / "checkpoints", config.resume)
    if checkpoint is not None:
        check_same_architecture(module.network, module.model, checkpoint)
    with tracked(config, folder, "train") as loggers:
        trainer = build_trainer(config, folder, loggers)
        with interruptible(trainer):
            trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    return folder / "checkpoints" / "last.ckpt"


@entry_point("train")
def main(config: DictConfig) -> float:
    """Train, evaluate, print the table; the return value is what a sweeper maximises."""
    folder, study = Path(HydraConfig.get().runtime.output_dir), chosen_study(config.study)
    checkpoint = fit(config, folder)
    log.info("checkpoint: %s", checkpoint)
    if not config.evaluate:
        return float("nan")
    summary = evaluate(checkpoint, config.data, folder)
    log.info("results: %s\n%s", folder / "results.jsonl", as_table(summary))
    network, _ = open_checkpoint(checkpoint)
    if study and isinstance(network, AdaptiveNetwork):
        report_study(study, network, config.data, folder)
    return summary["stage_psnr"][-1]


if __name__ == "__main__":
    main()
