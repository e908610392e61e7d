"""Labels and ids of runs."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from sapnet.training.loggers.labels import ID_FILE, Labels, run_labels, save_run_id, saved_run_id


@pytest.fixture
def hydra_job():
    """Set the state of Hydra inside a job, for some overrides."""

    def start(tmp_path: Path, *overrides: str):
        (tmp_path / "experiment").mkdir()
        (tmp_path / "data").mkdir()
        (tmp_path / "experiment" / "table3.yaml").write_text("# @package _global_\nx: 1\n")
        (tmp_path / "data" / "noise.yaml").write_text("y: 1\n")
        (tmp_path / "job.yaml").write_text(
            "defaults: [{data: noise}, {experiment: null}, _self_]\nx: 0\nname: null\ngroup: null\ntags: [free]\n"
        )
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            config = compose("job", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        return config

    yield start
    HydraConfig.instance().cfg = None
    GlobalHydra.instance().clear()


def test_labels_are_hydra_choices(tmp_path, hydra_job):
    config = hydra_job(tmp_path, "experiment=table3")
    assert run_labels(config) == Labels(None, "table3", ("table3", "noise", "free"))


def test_the_sweep_is_the_group_unless_the_config_names_one(tmp_path, hydra_job):
    config = hydra_job(tmp_path, "hydra.mode=MULTIRUN", "hydra.sweep.dir=outputs/sweeps/monday", "experiment=table3")
    assert run_labels(config).group == "monday"
    config.group, config.name = "mine", "first"
    assert run_labels(config) == Labels("first", "mine", ("table3", "noise", "free"))


def test_without_hydra_labels_are_those_of_the_config():
    config = OmegaConf.create({"tags": ["b", "a", "b"]})
    assert run_labels(config) == Labels(None, None, ("b", "a"))


def test_a_job_of_a_sweep_is_named_after_its_folder(tmp_path, hydra_job):
    config = hydra_job(tmp_path, "hydra.mode=MULTIRUN", "+hydra.runtime.output_dir=outputs/sweeps/monday/loss-l1")
    assert run_labels(config).name == "loss-l1"


def test_the_id_of_a_run_is_kept_in_its_folder(tmp_path):
    assert saved_run_id(tmp_path) is None
    save_run_id(tmp_path, "abc")
    assert saved_run_id(tmp_path) == "abc" and (tmp_path / ID_FILE).read_text() == "abc\n"
    tmp_path.rename(tmp_path.with_name("moved"))
    assert saved_run_id(tmp_path.with_name("moved")) == "abc"


def test_the_id_of_an_earlier_version_is_read_from_the_folder_of_wandb(tmp_path):
    (tmp_path / "wandb" / "offline-run-20260101_000000-0123456789abcdef").mkdir(parents=True)
    (tmp_path / "wandb" / "latest-run").symlink_to("offline-run-20260101_000000-0123456789abcdef")
    assert saved_run_id(tmp_path) == "0123456789abcdef"
