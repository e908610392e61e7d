"""Where a run's curves and pictures go: metrics.csv, W&B or TensorBoard, all against generator steps.

Every logger here has Lightning's interface and `finish`, and `log_picture` where it takes pictures. A metric
"generator_steps", where a module logs one, is taken as the step of all that comes with it.
"""

import csv
import hashlib
import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import hydra
import pytorch_lightning.loggers as lightning
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers.logger import rank_zero_experiment  # pyright: ignore[reportPrivateImportUsage]
from pytorch_lightning.utilities import rank_zero_only

from sapnet.errors import UserError
from sapnet.evaluation.pictures import Picture
from sapnet.files import write_atomically

STEP = "generator_steps"
#: What W&B calls these runs.
JOB_TYPE = "train"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labels:
    """How a run is found again among others."""

    name: str | None = None
    """What to show it as; W&B makes a name up where there is none."""
    group: str | None = None
    """What the runs of a sweep share."""
    tags: tuple[str, ...] = ()


@contextmanager
def tracked(config: DictConfig, folder: str | Path) -> Iterator[list[lightning.Logger]]:
    """A job's loggers, finished at its end: with exit code 0, or 1 where it ends by an exception.

    Without the finish a W&B run would swallow the data of a multirun's next job.
    """
    loggers = start_run(config, folder)
    exit_code = 1
    try:
        yield loggers
        exit_code = 0
    finally:
        finish_runs(loggers, exit_code)


def start_run(config: DictConfig, folder: str | Path) -> list[lightning.Logger]:
    """The loggers that `config.logger` asks for (one or, for `logger=none`, no one), for a run in `folder`.

    Each gets the whole resolved config as plain dicts, and `Labels` from Hydra's choices.
    """
    node = config.get("logger")
    if node is None:
        return []
    plain = OmegaConf.to_container(config, resolve=True)
    create = hydra.utils.instantiate(node, _partial_=True)
    return [create(folder=Path(folder), config=plain, labels=labels(config))]


def finish_runs(loggers: list[lightning.Logger], exit_code: int) -> None:
    """Close all `loggers`, for good; a logger that cannot be closed is named in the log and stops nothing."""
    for logger in loggers:
        try:
            cast(Any, logger).finish(exit_code)
        except Exception as error:  # the run's own outcome is what matters
            _log.warning("%s could not be finished: %s", type(logger).__name__, error)


def labels(config: DictConfig) -> Labels:
    """A job's labels: what `config` gives as `name`, `group` and `tags`, filled up from Hydra's choices.

    The group is by default the folder name of the sweep, which all its jobs share; of a single run, the experiment's
    name. The chosen options for experiment, ablation, data, network and sampling are tags in any case.
    """
    name, group, tags = config.get("name"), config.get("group"), list(config.get("tags") or [])
    if HydraConfig.initialized():
        job = HydraConfig.get()
        choices = job.runtime.choices
        sweep = Path(job.sweep.dir).name if job.mode == RunMode.MULTIRUN else None
        group = group or sweep or choices.get("experiment")
        tags = [choices.get(choice) for choice in ("experiment", "ablation", "data", "network", "sampling")] + tags
    return Labels(name, group, tuple(dict.fromkeys(str(tag) for tag in tags if tag)))


def run_id(folder: str | Path) -> str:
    """The identity of a run: a hash of its folder, so that a resumed run goes on with its own curves."""
    return hashlib.sha256(f"{Path(folder).resolve()}\n{JOB_TYPE}".encode()).hexdigest()[:16]


class CsvLogger(lightning.Logger):
    """Metrics as `metrics.csv` in the run's folder.

    The file is appended to, row by row. A resumed run keeps the rows before its first own step and drops those after:
    they were computed by the part of the run that got lost.
    """

    def __init__(self, folder: Path, config: dict[str, Any] | None = None, labels: Labels | None = None):
        super().__init__()
        self._folder = Path(folder)
        self._file = self._folder / "metrics.csv"
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        """The run's folder."""
        return str(self._folder)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: Hydra leaves the config in the folder."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row."""
        values, step = _at_step(metrics, step)
        row = {STEP: step} | {name: f"{float(value):.7g}" for name, value in values.items()}  # float32's digits
        if not self._columns:
            self._continue_at(step, set(values))
        if new := [name for name in row if name not in self._columns]:
            self._columns += new
            self._rewrite(_read_rows(self._file))
        with open(self._file, "a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def finish(self, exit_code: int) -> None:
        """Nothing: every row is on the disk already."""

    def _continue_at(self, step: int | None, names: set[str]) -> None:
        def kept(row: dict[str, str]) -> bool:
            if step is None or not row[STEP] or int(row[STEP]) < step:
                return True
            # Of a training step whose validation the resumed run catches up on.
            return int(row[STEP]) == step and not any(row[name] for name in (names & row.keys()) - {"epoch"})

        rows = _read_rows(self._file)
        if rows:
            self._columns = list(rows[0])
            self._rewrite([row for row in rows if kept(row)])

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self._file, text.getvalue().encode())


class TensorBoardLogger(lightning.TensorBoardLogger):
    """TensorBoard event files in `<folder>/tensorboard`.

    Raises:
        UserError: The package `tensorboard`, an extra of this one, is not installed.
    """

    def __init__(self, folder: Path, config: dict[str, Any] | None = None, labels: Labels | None = None):
        try:
            super().__init__(save_dir=folder, name="tensorboard", version="", default_hp_metric=False)
        except ModuleNotFoundError as error:
            raise UserError(
                "logger=tensorboard needs the package tensorboard: install it by pip install 'sapnet[tensorboard]', or"
                " use logger=csv."
            ) from error
        self._config = config

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The whole config as text: TensorBoard's own table of hyperparameters takes no nested ones."""
        if self._config is not None:
            self.experiment.add_text("config", f"```yaml\n{OmegaConf.to_yaml(self._config)}```")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """One scalar for each metric."""
        super().log_metrics(*_at_step(metrics, step))

    @rank_zero_only
    def log_picture(self, name: str, picture: Picture, step: int) -> None:
        """An image at `step`."""
        self.experiment.add_image(name, picture, step, dataformats="HWC")

    def finish(self, exit_code: int) -> None:
        """Flush and close the event file."""
        self.finalize("success" if exit_code == 0 else "failed")


class WandbLogger(lightning.WandbLogger):
    """A run of Weights & Biases in `<folder>/wandb`: config, group, tags, curves against generator steps, pictures.

    Offline by default: nothing is sent, and `wandb sync` sends it later. A resumed run has the same id. Its parts of an
    offline run lie in folders of their own, at steps of their own: send them in their order, each later one with
    `wandb sync --append`.

    Args:
        folder: The run's folder.
        config: The whole config as plain dicts.
        labels: Name, group and tags.
        project: The W&B project.
        entity: The W&B team or user; the login's by default.
        offline: Whether nothing is sent.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        labels: Labels,
        project: str = "sapnet",
        entity: str | None = None,
        offline: bool = True,
    ):
        super().__init__(
            name=labels.name,
            save_dir=folder,
            id=run_id(folder),
            project=project,
            entity=entity,
            config=config,
            job_type=JOB_TYPE,
            group=labels.group,
            tags=[tag[:64] for tag in labels.tags],
            # Lightning's own `offline` would keep the whole process offline, a multirun's later jobs too.
            mode="offline" if offline else None,
            # A run of its own, whatever else is running in the process.
            reinit="create_new",
        )
        self._wandb_init.pop("anonymous", None)  # without effect, and W&B warns of it

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, started on first use.

        Raises:
            UserError: W&B refused (no login, no connection).
        """
        if self._experiment is None:
            # Else even an offline run would report its errors to W&B.
            if self._wandb_init["mode"] == "offline":
                os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
            import wandb
            from wandb.errors import Error

            Path(self._wandb_init["dir"]).mkdir(parents=True, exist_ok=True)
            try:
                self._experiment = wandb.init(**self._wandb_init, settings=wandb.Settings(console="off"))
            except Error as error:
                reason = " ".join(str(error).split())
                raise UserError(f"W&B could not start: {reason} (logger.offline=true works without it).") from error
            self._experiment.define_metric(STEP)
            self._experiment.define_metric("*", step_metric=STEP)
        return self._experiment

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run has the whole config from its start."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """One row of the run's history."""
        values, step = _at_step(metrics, step)
        if step is None:
            self.experiment.log(values)
        else:
            # W&B's own count follows ours, so that the parts of a resumed run do not overlap.
            self.experiment.log({**values, STEP: step}, step=step)

    @rank_zero_only
    def log_picture(self, name: str, picture: Picture, step: int) -> None:
        """An image in the media panel, at `step`."""
        import wandb

        self.log_metrics({name: wandb.Image(picture)}, step)

    def finish(self, exit_code: int) -> None:
        """End the W&B run; 0 marks it finished, anything else failed."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None


def _at_step(metrics: Mapping[str, Any], step: int | None) -> tuple[dict[str, Any], int | None]:
    values = dict(metrics)
    own = values.pop(STEP, step)
    return values, None if own is None else int(own)


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    whole, _, _torn = path.read_text().rpartition("\n")
    return list(csv.DictReader(io.StringIO(whole, newline="")))
