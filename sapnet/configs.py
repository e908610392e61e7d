"""Folders of the Hydra configs and of the studies, and the node of a config that describes its network."""

from pathlib import Path
from typing import Any, cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

_PACKAGE = Path(__file__).resolve().parent

CONFIG_DIR: Path = _PACKAGE / "conf" if (_PACKAGE / "conf").is_dir() else _PACKAGE.parent / "conf"
"""Folder of the Hydra configs: inside an installed package, next to the package in a checkout."""

EXPERIMENTS: Path = CONFIG_DIR.parent / "experiments"
"""Folder of the studies, one YAML file each."""

# A node that takes keys it does not have, without `+`. `trainer` includes it, since the flags of Lightning's Trainer
# depend on the version; `sapnet.training.trainer_flags` checks their names.
ConfigStore.instance().store(
    "keys", OmegaConf.create({}, flags={"struct": False}), "trainer/base/open", provider="sapnet"
)


def compose_network(config: DictConfig) -> dict[str, Any]:
    """Return the description of the network of a composed config: `config.network`, with its sampler if it has one.

    Returns:
        Resolved plain values with `_target_`, for `hydra.utils.instantiate`.
    """
    network, sampling = (
        cast(dict[str, Any], OmegaConf.to_container(config[group], resolve=True)) for group in ("network", "sampling")
    )
    if not sampling.pop("sampled"):
        return network
    return {**sampling, "generator": network, "seed": config.seed}
