"""Metrics and pictures in Weights & Biases."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning.loggers as lightning
from pytorch_lightning.loggers.logger import rank_zero_experiment  # pyright: ignore[reportPrivateImportUsage]
from pytorch_lightning.utilities import rank_zero_only

from sapnet.errors import UserError
from sapnet.evaluation.pictures import Picture
from sapnet.training.loggers.labels import JOB_TYPE, Labels, run_id
from sapnet.training.loggers.steps import STEP, split_step


class WandbLogger(lightning.WandbLogger):
    """Log config, labels, metrics against generator steps, and pictures to a W&B run in `<folder>/wandb`.

    The default is offline: nothing is uploaded until `wandb sync` is called. A resumed run has the same id. Each part
    of a resumed offline run has its own folder: upload the parts in order, and all after the first with
    `wandb sync --append`.

    Args:
        folder: Folder of the run.
        config: Complete config as plain dicts.
        labels: Name, group and tags.
        project: W&B project.
        entity: W&B team or user; None for the one that is logged in.
        offline: Whether to upload nothing.
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
            # Lightning's own `offline` affects the whole process, including later jobs of a multirun.
            mode="offline" if offline else None,
            # A separate run, even if another one is active in this process.
            reinit="create_new",
        )
        self._wandb_init.pop("anonymous", None)  # has no effect, but W&B warns about it

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, created on first use.

        Raises:
            UserError: W&B cannot start (no login, no connection).
        """
        if self._experiment is None:
            # Otherwise W&B uploads its own errors even from an offline run.
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
        """Do nothing; the run is created with the config."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        values, step = split_step(metrics, step)
        if step is None:
            self.experiment.log(values)
        else:
            # W&B's own step is set too, so that the parts of a resumed run do not overlap.
            self.experiment.log({**values, STEP: step}, step=step)

    @rank_zero_only
    def log_picture(self, name: str, picture: Picture, step: int) -> None:
        """Log an image at a generator step."""
        import wandb

        self.log_metrics({name: wandb.Image(picture)}, step)

    def finish(self, exit_code: int) -> None:
        """Finish the W&B run; a non-zero exit code marks it as failed."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None
