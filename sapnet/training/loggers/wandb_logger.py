"""Metrics, pictures, test images and the best checkpoint in Weights & Biases."""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning.loggers as lightning
from pytorch_lightning.loggers.logger import rank_zero_experiment  # pyright: ignore[reportPrivateImportUsage]
from pytorch_lightning.utilities import rank_zero_only

from sapnet.errors import UserError
from sapnet.evaluation.pictures import Picture
from sapnet.evaluation.restored_images import RestoredImage
from sapnet.training.loggers.labels import JOB_TYPE, Labels, save_run_id, saved_run_id
from sapnet.training.loggers.steps import STEP, split_step


class WandbLogger(lightning.WandbLogger):
    """Log config, labels, metrics against generator steps, and pictures to a W&B run in `<folder>/wandb`.

    The default is offline: nothing is uploaded until `wandb sync` is called. W&B draws the id of a run, and the run
    folder keeps it for a resumed training. Each part of a resumed offline run has its own folder: upload the parts in
    order, and all after the first with `wandb sync --append`.

    Args:
        folder: Folder of the run.
        config: Complete config as plain dicts.
        labels: Name, group and tags.
        project: W&B project.
        entity: W&B team or user; None for the one that is logged in.
        offline: Whether to upload nothing.
        log_model: Whether to log the best checkpoint as an artifact.
        test_images: Number of rows of the table of test images.
    """

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        labels: Labels,
        project: str = "sapnet",
        entity: str | None = None,
        offline: bool = True,
        log_model: bool = True,
        test_images: int = 8,
    ):
        super().__init__(
            name=labels.name,
            save_dir=folder,
            id=saved_run_id(folder),
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
        if "WANDB_SWEEP_ID" in os.environ:
            # The agent of a W&B sweep has chosen them, and W&B would warn about others.
            self._wandb_init |= {"id": None, "project": None, "entity": None}
        self.logs_checkpoint, self.test_images = log_model, test_images

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
                raise UserError(
                    f"W&B could not start: {reason} (logger.wandb.offline=true works without it)."
                ) from error
            save_run_id(self._wandb_init["dir"], self._experiment.id)
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

    @rank_zero_only
    def log_summary(self, values: Mapping[str, float]) -> None:
        """Set values of the run's summary."""
        self.experiment.summary.update(dict(values))

    @rank_zero_only
    def log_test_images(self, images: Iterable[RestoredImage], step: int) -> None:
        """Log the table `test/images`: a row per image with its pictures, and PSNR and SSIM of its last stage."""
        import wandb

        table = None
        for image in images:
            line = image.metrics
            if table is None:
                table = wandb.Table(columns=["name", *image.pictures, "psnr_input", "psnr", "ssim_input", "ssim"])
            values = line["input_psnr"], line["stage_psnr"][-1], line["input_ssim"], line["stage_ssim"][-1]
            table.add_data(image.name, *map(wandb.Image, image.pictures.values()), *values)
        if table is not None:
            with self._staged_in_folder():
                # Without W&B's own step, which a repeated command would have passed already.
                self.experiment.log({"test/images": table, STEP: step})

    @rank_zero_only
    def log_checkpoint(self, path: Path, metadata: Mapping[str, Any]) -> None:
        """Log a checkpoint as Lightning's logger does: the file `model.ckpt` of the artifact `model-<run id>`."""
        import wandb

        artifact = wandb.Artifact(f"model-{self.experiment.id}", type="model", metadata=dict(metadata))
        with self._staged_in_folder():
            artifact.add_file(str(path), name="model.ckpt")
        self.experiment.log_artifact(artifact, aliases=["latest", "best"])

    def finish(self, exit_code: int) -> None:
        """Finish the W&B run; a non-zero exit code marks it as failed."""
        if self._experiment is not None:
            self._experiment.finish(exit_code=exit_code)
            self._experiment = None

    @contextmanager
    def _staged_in_folder(self) -> Iterator[None]:
        # W&B copies the files of artifacts until they are uploaded. Those of an offline run belong to its folder: in
        # the home folder nothing would remove them.
        name = "WANDB_DATA_DIR"
        if name in os.environ:
            yield
            return
        os.environ[name] = str(Path(self._wandb_init["dir"]).resolve() / "wandb")
        try:
            yield
        finally:
            del os.environ[name]
