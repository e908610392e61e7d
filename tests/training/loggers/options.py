"""Configs of the loggers."""

from omegaconf import DictConfig, OmegaConf

from sapnet.configs import CONFIG_DIR


def logger_config(name: str) -> DictConfig:
    """Return a config with an option of the group `logger`."""
    return OmegaConf.create({"logger": OmegaConf.load(CONFIG_DIR / "logger" / f"{name}.yaml"), "model": {"width": 3}})
