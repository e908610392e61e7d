"""Name, group, tags and identity of a run."""

from dataclasses import dataclass
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from sapnet.files import write_atomically

#: Job type of training runs in W&B.
JOB_TYPE = "train"
#: File of a run folder with the id of its W&B run.
ID_FILE = "wandb_id.txt"
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

    The default group is the folder name of the sweep, or the experiment of a single run; the default name of a job of a
    sweep is that of its folder. The options chosen for experiment, ablation, data, network and sampling are always
    tags.
    """
    name, group, tags = config.get("name"), config.get("group"), list(config.get("tags") or [])
    if HydraConfig.initialized():
        job = HydraConfig.get()
        choices = job.runtime.choices
        in_sweep = job.mode == RunMode.MULTIRUN
        group = group or (Path(job.sweep.dir).name if in_sweep else choices.get("experiment"))
        if in_sweep and not OmegaConf.is_missing(job.runtime, "output_dir"):
            name = name or Path(job.runtime.output_dir).name
        tags = [choices.get(group_name) for group_name in _TAG_GROUPS] + tags
    return Labels(name, group, tuple(dict.fromkeys(str(tag) for tag in tags if tag)))


def saved_run_id(folder: str | Path) -> str | None:
    """Return the id of the W&B run of a run folder, which a resumed training continues; None for a new run.

    Earlier versions did not save it: it is then read from the name of a folder that W&B wrote.
    """
    path = Path(folder) / ID_FILE
    if path.is_file():
        return path.read_text().strip() or None
    written = sorted(Path(folder).glob("wandb/*run-*-*"))
    return written[-1].name.rpartition("-")[2] if written else None


def save_run_id(folder: str | Path, run_id: str) -> None:
    """Save the id of the W&B run of a run folder."""
    if run_id != saved_run_id(folder) or not (Path(folder) / ID_FILE).is_file():
        write_atomically(Path(folder) / ID_FILE, f"{run_id}\n".encode())
