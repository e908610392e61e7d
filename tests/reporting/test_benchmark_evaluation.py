"""Networks, published weights and test images of Tables 1 and 2."""

import json
from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest

from sapnet.configs import CONFIG_DIR, EXPERIMENTS
from sapnet.errors import UserError
from sapnet.evaluation.networks import published_config
from sapnet.reporting.benchmark_evaluation import MissingData, find_images
from sapnet.reporting.benchmark_tables import TestSet, read_benchmark
from sapnet.reporting.candidates import (
    PUBLISHED,
    ROWS,
    Candidate,
    given_weights,
    published_networks,
    selected_checkpoints,
    trained_networks,
)
from sapnet.reporting.runs import RunStore
from sapnet.reporting.study import read_study
from tests.contract.layouts import LAYOUTS, picture

TABLE_1 = EXPERIMENTS / "table1.yaml"


@pytest.fixture(autouse=True)
def configs() -> Iterator[None]:
    with hydra.initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        yield


def sets(table: int) -> dict[str, TestSet]:
    return {test.name: test for test in read_benchmark(EXPERIMENTS / f"table{table}.yaml").sets}


def names(test: TestSet, root: Path) -> list[str]:
    result = find_images(test, root)
    return [result.items.name(index) for index in range(len(result.items))]


def test_official_and_derived_images_are_found_separately(tmp_path: Path) -> None:
    expected = LAYOUTS["gopro"](tmp_path / "GOPRO_Large")["test"]
    official, derived = sets(1).values()
    result = find_images(official, tmp_path)
    assert names(official, tmp_path) == expected and result.total == 1111 and result.protocol == "standard"
    assert result.context["blur"] == "blur" and "partial" not in result.context, "more images make no line another's"
    assert find_images(derived, tmp_path) is None
    for kind in ("blur", "blur_gamma", "sharp"):
        picture(tmp_path / "GOPRO_Large" / "test" / "GOPR0384_11_00" / kind / "000203.png")
    assert names(official, tmp_path) == expected
    assert names(derived, tmp_path) == ["GOPR0384_11_00/000203"] and find_images(derived, tmp_path).total is None


def test_hide_and_realblur_are_found_by_their_usual_folder_names(tmp_path: Path) -> None:
    for name, folder in (("hide", "HIDE_dataset"), ("realblur_j", "RealBlur")):
        LAYOUTS[name](tmp_path / folder)
    result = {name: find_images(test, tmp_path) for name, test in sets(2).items() if name != "RealBlur-R"}
    assert {name: (one.total, one.protocol) for name, one in result.items()} == {
        "HIDE": (2025, "standard"),
        "RealBlur-J": (980, "realblur"),
    }
    with pytest.raises(MissingData, match="RealBlur contains no folder RealBlur-R_BM3D"):
        find_images(sets(2)["RealBlur-R"], tmp_path)


def test_missing_data_is_distinguished_from_damaged_data(tmp_path: Path) -> None:
    official, _ = sets(1).values()
    with pytest.raises(MissingData, match="data_root=FOLDER"):
        find_images(official, None)
    with pytest.raises(MissingData, match="GOPRO_Large or GoPro or GOPRO"):
        find_images(official, tmp_path)
    LAYOUTS["gopro"](tmp_path / "GOPRO_Large")
    (tmp_path / "GOPRO_Large" / "test" / "GOPR0384_11_00" / "sharp" / "000001.png").unlink()
    with pytest.raises(UserError, match="without a partner") as raised:
        find_images(official, tmp_path)
    assert not isinstance(raised.value, MissingData)


def test_finished_runs_are_found_and_missing_ones_reported(tmp_path: Path) -> None:
    study = read_study(EXPERIMENTS / "table1.yaml", "mini")
    folder = RunStore(tmp_path).folder(study.overrides("Ours_nu", 0))
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_bytes(b"a checkpoint")
    assert all(isinstance(one, dict) for one in trained_networks(TABLE_1, tmp_path)), "it is not done"
    made = {"overrides": study.overrides("Ours_nu", 0), "command": "python -m sapnet train steps=3", "commit": "abc"}
    (folder / "done.json").write_text(json.dumps(made))
    result = list(trained_networks(TABLE_1, tmp_path))
    assert [one["row"] for one in result if isinstance(one, dict)] == ["SRN", "DMPHN", "Ours_u_a", "Ours_u_b"]
    (one,) = (one for one in result if isinstance(one, Candidate))
    other = study.changed([], ["data=folder", "data.root=X"])  # the same on other data, and one with other settings
    for changed, name in ((other, "other"), (study.changed(["steps=7"], []), "settings")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "done.json").write_text(json.dumps(made | {"overrides": changed.overrides("Ours_nu", 0)}))
    origins = [x.origin for x in trained_networks(TABLE_1, tmp_path) if isinstance(x, Candidate)]
    assert sorted(origins) == [f"mini scale, trained on {data}, seed 0" for data in ("folder", "synthetic")]
    assert (one.row, one.origin) == ("Ours_nu", "mini scale, trained on synthetic, seed 0")
    assert one.trained == "python -m sapnet train steps=3 at commit abc"
    with pytest.raises(UserError, match=r"last\.ckpt"):
        one.load()
    (folder / "checkpoints" / "best.ckpt").write_bytes(b"a checkpoint")
    (one, *_) = (x for x in trained_networks(TABLE_1, tmp_path) if isinstance(x, Candidate))
    with pytest.raises(UserError, match=r"best\.ckpt"):
        one.load()
    assert "Ours_nu" in [
        x.row for x in trained_networks(EXPERIMENTS / "table2.yaml", tmp_path) if isinstance(x, Candidate)
    ]


def test_published_weights_are_identified_by_their_files(tmp_path: Path) -> None:
    kinds = {"a": ("encoder_lv1", "encoder_lv3"), "b/c": ("encoder_lv3", "encoder_lv4"), "d": ("encoder_s4_lv1",)}
    for folder, files in (kinds | {"e": ("encoder_other",)}).items():
        (tmp_path / folder).mkdir(parents=True)
        for file in files:
            (tmp_path / folder / f"{file}.pkl").touch()
    rows = ["DMPHN(1-2-4), no row of the paper's", "DMPHN(1-2-4-8), no row of the paper's", "DMPHN"]
    assert [one.row for one in published_networks(tmp_path)] == rows
    with pytest.raises(UserError, match="damaged"):
        next(published_networks(tmp_path)).load()
    for file in ("a/motion_deblurring.pth", "MIMO-UNetPlus.pkl", "b/c/model_deblurring.pth", "b/other.pth"):
        (tmp_path / file).touch()
    assert [one.row for one in published_networks(tmp_path)] == [rows[0], "Restormer", rows[1], "MPRNet", rows[2]]


def test_every_published_network_has_a_config_and_a_row() -> None:
    assert set(PUBLISHED.values()) == set(ROWS)
    for network in ROWS:
        published_config(network)
    rows = {row for row in ROWS.values() if not row.endswith("no row of the paper's")}
    for table, absent in ((1, set()), (2, {"SVRN", "DPN"})):
        benchmark = read_benchmark(EXPERIMENTS / f"table{table}.yaml")
        assert rows - absent <= {*benchmark.quoted, *benchmark.study.rows}


def test_weights_are_given_by_network(tmp_path: Path) -> None:
    (tmp_path / "own.pth").touch()
    (one,) = given_weights({"mprnet": str(tmp_path / "own.pth")})
    assert (one.row, one.origin) == ("MPRNet", "its authors' weights")
    assert list(given_weights(None)) == []
    with pytest.raises(UserError, match=r"weights\.mprnet: there is no file .*none\.pth"):
        list(given_weights({"mprnet": str(tmp_path / "none.pth")}))
    with pytest.raises(UserError, match=r"network resnet: there is no such network; use .*mprnet, "):
        list(given_weights({"resnet": str(tmp_path / "own.pth")}))
    with pytest.raises(UserError, match="none are published for this network"):
        list(given_weights({"mini": str(tmp_path / "own.pth")}))


def test_missing_checkpoint_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*none.ckpt"):
        list(selected_checkpoints([str(tmp_path / "none.ckpt")]))
