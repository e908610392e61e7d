"""`sapnet demo`: train a small network and its policy on the embedded data, measure both, draw what they do."""

import logging
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sapnet.cli.hydra_command import hydra_command
from sapnet.reporting.demo import as_text, run_demo

log = logging.getLogger(__name__)


@hydra_command("demo")
def main(config: DictConfig) -> float:
    """Run the demo; the return value is the gain in dB."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    summary = run_demo(config, folder)
    log.info("%s", as_text(summary))
    log.info("the whole run: %.0f s", summary["run_seconds"])
    log.info("picture: %s   figures: %s", folder / "demo.png", folder / "summary.json")
    return summary["gain_db"]
