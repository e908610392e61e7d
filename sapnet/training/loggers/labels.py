"""Name, group, tags and identity of a run."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

#: Job type of training runs in W&B.
JOB_TYPE = "train"
#: Config groups whose chosen options are tags.
_TAG_GROUPS = ("experiment", "ablation", "data", "network", "sampling")


@dataclass(frozen=True)
class Labels:
    """Labels of a run in a logger.

    Attributes:
        name: Displayed name; None for a name that W&B generates.
        group: Name shared by the runs of a sweep.
        tags: Tags of the run.
    """

    name: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()


def run_labels(config: DictConfig) -> Labels:
    """Return the labels of a run: `name`, `group` and `tags` of its config, completed from Hydra's choices.

    The default group is the folder name of the sweep, or the experiment of a single run. The options chosen for
    experiment, ablation, data, network and sampling are always tags.
    """
    name, group, tags = config.get("name"), config.get("group"), list(config.get("tags") or [])
    if HydraConfig.initialized():
        job = HydraConfig.get()
        choices = job.runtime.choices
        sweep = Path(job.sweep.dir).name if job.mode == RunMode.MULTIRUN else None
        group = group or sweep or choices.get("experiment")
        tags = [choices.get(group_name) for group_name in _TAG_GROUPS] + tags
    return Labels(name, group, tuple(dict.fromkeys(str(tag) for tag in tags if tag)))


def run_id(folder: str | Path) -> str:
    """Return the id of a run, a hash of its folder, so that a resumed run continues its own curves."""
    return hashlib.sha256(f"{Path(folder).resolve()}\n{JOB_TYPE}".encode()).hexdigest()[:16]
