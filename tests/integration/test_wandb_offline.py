"""Content of offline W&B runs, without network access."""

import ipaddress
import json
import socket
import time
from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from sapnet.configs import CONFIG_DIR
from sapnet.evaluation.network_evaluation import measure
from sapnet.evaluation.results_file import read_results
from sapnet.training.callbacks.panels import PanelCallback
from sapnet.training.loggers.labels import saved_run_id
from sapnet.training.loggers.results import log_checkpoint, log_results, log_test_images
from sapnet.training.loggers.run import open_loggers
from tests.integration.wandb_file import OfflineRun, read_run
from tests.training.test_policy_gradient_module import adaptive
from tests.training.two_optimizers import TwoOptimizers, fit


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Refuse connections to other machines; W&B uses a local socket for its own process."""
    refused = []

    def local_only(connect):
        def checked(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                try:
                    local = ipaddress.ip_address(address[0]).is_loopback
                except ValueError:
                    local = address[0] == "localhost"
                if not local:
                    refused.append(address)
                    raise OSError(f"a test tried to reach {address}")
            return connect(self, address)

        return checked

    monkeypatch.setattr(socket.socket, "connect", local_only(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", local_only(socket.socket.connect_ex))
    yield
    assert not refused


def config(width: int) -> DictConfig:
    logger = {"_target_": "sapnet.training.loggers.wandb_logger.WandbLogger", "project": "sapnet", "offline": True}
    content = {
        "logger": {"wandb": logger},
        "model": {"width": width, "again": "${model.width}"},
        "data": {"sizes": [1, 2]},
    }
    labels = {"name": f"width {width}", "group": "widths", "tags": ["small", "noise"]}
    return OmegaConf.create(content | labels)


def train(folder: Path) -> None:
    with open_loggers(config(4), folder) as loggers:
        fit(TwoOptimizers(), logger=loggers, max_epochs=2, callbacks=[PanelCallback(folder / "panels")])


def read_runs(folder: Path) -> list[OfflineRun]:
    """Return the runs in a folder, oldest first; W&B writes the last bytes shortly after the finish."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        runs = [read_run(path) for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))]
        if runs and all(run.exit_code is not None for run in runs):
            return runs
        time.sleep(0.05)
    raise AssertionError(f"a run in {folder} was not finished")


def test_a_run_contains_config_labels_metrics_and_pictures(tmp_path):
    train(tmp_path)
    (run,) = read_runs(tmp_path)
    assert (run.id, run.group, run.job_type, run.name) == (saved_run_id(tmp_path), "widths", "train", "width 4")
    assert sorted(run.tags) == ["noise", "small"]
    assert run.config["model"] == {"width": 4, "again": 4} and run.config["data"] == {"sizes": [1, 2]}
    assert run.step_metrics["*"] == "generator_steps"
    assert run.exit_code == 0

    losses = {row["generator_steps"]: row["train/loss"] for row in run.history if "train/loss" in row}
    assert list(losses) == [1, 2, 3, 4, 5, 6, 7, 8], "generator steps"
    assert all(row["_step"] == row["generator_steps"] for row in run.history)
    assert [row["generator_steps"] for row in run.history if "val/psnr" in row] == [4, 8]

    pictures = [row for row in run.history if "validation" in row]
    assert [row["generator_steps"] for row in pictures] == [4, 8]
    assert {row["validation"]["path"] for row in pictures} <= set(run.files)
    (files,) = tmp_path.glob("wandb/offline-run-*/files")
    assert all((files / row["validation"]["path"]).read_bytes().startswith(b"\x89PNG") for row in pictures)
    assert not (tmp_path / "panels").exists()


def test_two_jobs_of_a_process_are_separate_runs(tmp_path):
    with pytest.raises(ZeroDivisionError), open_loggers(config(1), tmp_path / "0") as (logger,):
        logger.log_metrics({"train/loss": 1.0}, 5)
        raise ZeroDivisionError
    with open_loggers(config(2), tmp_path / "1") as (logger,):
        logger.log_metrics({"train/loss": 2.0}, 6)
    (first,), (second,) = read_runs(tmp_path / "0"), read_runs(tmp_path / "1")
    assert first.id != second.id
    assert (first.exit_code, second.exit_code) == (1, 0)
    assert (first.config["model"]["width"], second.config["model"]["width"]) == (1, 2)
    assert [row["train/loss"] for row in first.history] == [1.0]
    assert [row["train/loss"] for row in second.history] == [2.0]


def test_a_resumed_run_keeps_its_id_and_steps(tmp_path):
    for steps in ((1, 2), (3, 4)):
        with open_loggers(config(1), tmp_path) as (logger,):
            for step in steps:
                logger.log_metrics({"train/loss": 0.5, "generator_steps": float(step)}, 0)
    first, second = read_runs(tmp_path)
    assert first.id == second.id == saved_run_id(tmp_path)
    assert [row["_step"] for run in (first, second) for row in run.history] == [1, 2, 3, 4]


def test_runs_of_one_config_have_different_ids(tmp_path):
    """Also in a folder of the same name, as on two machines."""
    ids = []
    for number in range(2):
        with open_loggers(config(1), tmp_path / "run") as (logger,):
            logger.log_metrics({"train/loss": 0.5}, 1)
        ids += [run.id for run in read_runs(tmp_path / "run")]
        (tmp_path / "run").rename(tmp_path / str(number))
    assert len(set(ids)) == 2


def test_a_run_contains_the_results_of_a_training(tmp_path):
    """Summary values, a table of test images, and the checkpoint as an artifact."""
    data = OmegaConf.merge(OmegaConf.load(CONFIG_DIR / "data" / "synthetic.yaml"), {"test": 3, "size": 32, "seed": 0})
    checkpoint, network = tmp_path / "best.ckpt", adaptive().network.eval()
    checkpoint.write_bytes(b"weights")
    test = measure(network, {"model": "small"}, data, tmp_path)
    validation = {"psnr": 20.0, "psnr_best": 30.0}
    settings = config(1)
    settings.logger.wandb.test_images = 2
    with open_loggers(settings, tmp_path) as loggers:
        loggers[0].log_metrics({"val/psnr": 30.0, "val/psnr_best": 30.0}, 2)
        loggers[0].log_metrics({"val/psnr": 20.0, "val/psnr_best": 30.0}, 3)
        log_results(loggers, test, validation, 3)
        log_checkpoint(loggers, checkpoint, validation)
        log_test_images(loggers, network, data, 3)
    (run,) = read_runs(tmp_path)
    assert (run.summary["val/psnr_best"], run.summary["val/psnr"]) == (30.0, 20.0)
    assert (run.summary["test/psnr"], run.summary["test/ssim"]) == (test["stage_psnr"][-1], test["stage_ssim"][-1])
    assert run.summary["test/psnr_input"] == test["input_psnr"]

    (model,) = [artifact for artifact in run.artifacts if artifact.type == "model"]
    assert model.name == f"model-{run.id}" and {*model.aliases} == {"latest", "best"}
    assert json.loads(model.metadata)["score"] == 30.0
    (entry,) = model.manifest.contents
    assert entry.path == "model.ckpt" and Path(entry.local_path).is_relative_to(tmp_path)
    assert Path(entry.local_path).read_bytes() == checkpoint.read_bytes()

    (row,) = [row for row in run.history if "test/images" in row]
    assert row["generator_steps"] == 3
    (files,) = tmp_path.glob("wandb/offline-run-*/files")
    table = json.loads((files / row["test/images"]["path"]).read_text())
    stages = ["stage_1", "stage_2", "stage_3"]
    pictures = ["blurred", *stages, "sharp", "points_2", "points_3"]
    assert table["columns"] == ["name", *pictures, "psnr_input", "psnr", "ssim_input", "ssim"]
    lines = read_results(tmp_path / "results.jsonl")[:2]
    assert [cells[0] for cells in table["data"]] == [line["name"] for line in lines]
    assert [cells[-3] for cells in table["data"]] == pytest.approx([line["stage_psnr"][-1] for line in lines])
    (images,) = [artifact for artifact in run.artifacts if artifact.type == "run_table"]
    stored = [Path(entry.local_path) for entry in images.manifest.contents if entry.path.endswith(".png")]
    assert len(stored) == 2 * len(pictures) and all(path.is_relative_to(tmp_path) for path in stored)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in stored)


def test_the_artifact_and_the_table_can_be_switched_off(tmp_path):
    settings = config(1)
    settings.logger.wandb.update(log_model=False, test_images=0)
    with open_loggers(settings, tmp_path) as loggers:
        loggers[0].log_metrics({"val/psnr": 30.0}, 3)
        log_checkpoint(loggers, tmp_path / "best.ckpt", None)
        log_test_images(loggers, torch.nn.Identity(), OmegaConf.create(), 3)
    (run,) = read_runs(tmp_path)
    assert run.artifacts == [] and not any("test/images" in row for row in run.history)
