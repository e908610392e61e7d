"""Saved results of a study: equal tables, continuation, and priority of runs."""

import json

import pytest

from sapnet.errors import UserError
from sapnet.evaluation.results_file import append_result
from sapnet.provenance import KEYS
from sapnet.reporting.comparison import compare
from sapnet.reporting.run_tables import all_images, ordered, run_lines
from sapnet.reporting.saved_results import IMAGE_COLUMNS, read_saved_results, read_table, write_saved_results
from sapnet.reporting.study import Study
from sapnet.reporting.study_tables import as_csv, as_markdown, gains_table

STUDY = Study("Where", "random", (0, 1), {"random": [], "U": [], "oracle": []}, references=("U",))
GMACS = dict.fromkeys(STUDY.rows, 1.5)


def places(root):
    return lambda row, seed: root / row / str(seed)


def train(root, row, values, seeds=(0, 1), commit="abc1234", names="abc"):
    """Write the files of a finished run; the values by image increase with the seed."""
    for seed in seeds:
        folder = root / row / str(seed)
        for name, value in zip(names, values, strict=False):
            line = {"name": name, "input_psnr": 20.0, "stage_psnr": [21.0, value + seed], "stage_ssim": [0.8, 0.9]}
            append_result(folder / "results.jsonl", line | {"seconds": 0.25, "generator_steps": 7})
        made = {"command": f"python -m sapnet train seed={seed}", "commit": commit, "config_hash": f"{row}{seed}"}
        (folder / "done.json").write_text(json.dumps(made | {"versions": {"python": "3", "torch": "2", "sapnet": "0"}}))


def keep(root, folder, kept=None):
    runs, lines = run_lines(STUDY, places(root), GMACS, kept), compare(STUDY, places(root), kept)
    images = all_images(STUDY, places(root), kept)
    files = {".csv": as_csv(ordered(runs)), "_images.csv": as_csv(images), "_rows.csv": as_csv(lines)}
    write_saved_results(folder, "study", files)


def table(root, kept=None):
    lines = compare(STUDY, places(root), kept)
    return as_markdown(STUDY, lines, {}) + gains_table(STUDY, lines, "U")


def test_saved_results_give_the_same_table_as_the_runs(tmp_path):
    train(tmp_path / "here", "random", [20.0, 25.0, 31.0])
    train(tmp_path / "here", "U", [20.5, 25.0, 31.0])
    train(tmp_path / "here", "oracle", [21.0, 25.5, 33.0])
    keep(tmp_path / "here", tmp_path / "kept")
    expected, kept = table(tmp_path / "here"), read_saved_results(tmp_path / "kept", "study")
    assert "| oracle | 27.00 ± 0.71 |" in expected and "| oracle | +1.00 [" in expected
    assert table(tmp_path / "nowhere", kept) == expected
    before = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    keep(tmp_path / "nowhere", tmp_path / "kept", kept)
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == before
    first = read_table(tmp_path / "kept" / "study_images.csv")[0]
    assert tuple(first) == IMAGE_COLUMNS and first["image"] == "a" and first["config_hash"] == "random0"
    run = read_table(tmp_path / "kept" / "study.csv")[0]
    assert tuple(run)[-4:] == KEYS and run["versions"] == "python 3, torch 2, sapnet 0" and run["steps"] == 7


def test_study_is_continued_from_saved_results(tmp_path):
    """The seeds of a row can be split between saved results and runs; runs have priority."""
    train(tmp_path / "there", "random", [20.0, 25.0])
    train(tmp_path / "there", "oracle", [21.0, 26.0], seeds=(0,))
    keep(tmp_path / "there", tmp_path / "kept")
    kept = read_saved_results(tmp_path / "kept", "study")
    train(tmp_path / "here", "oracle", [21.0, 26.0], seeds=(1,))
    train(tmp_path / "here", "random", [19.0, 24.0], commit="newer")
    random, uniform, oracle = compare(STUDY, places(tmp_path / "here"), kept)
    assert random["psnr_db"] == pytest.approx(22.0) and random["commit"] == "newer"
    assert oracle["gain_db"] == pytest.approx(2) and oracle["gain_by_seed_db"] == pytest.approx([2, 2])
    assert oracle["intervals_from"] == "images" and "psnr_db" not in uniform
    keep(tmp_path / "here", tmp_path / "kept", kept)
    assert len(read_saved_results(tmp_path / "kept", "study").images) == 4


def test_row_without_results_by_image_is_copied_as_recorded(tmp_path):
    train(tmp_path / "there", "random", [20.0, 25.0, 31.0])
    train(tmp_path / "there", "oracle", [21.0, 25.5, 33.0])
    keep(tmp_path / "there", tmp_path / "kept")
    (tmp_path / "kept" / "study_images.csv").unlink()
    old = compare(STUDY, places(tmp_path / "there"))[2]
    kept = read_saved_results(tmp_path / "kept", "study")
    # Half of it again, and a new row: the quoted one stands as it was, the new one has what it can be paired with.
    train(tmp_path / "here", "oracle", [0.0, 0.0, 0.0], seeds=(0,))
    train(tmp_path / "here", "U", [20.0, 25.0, 31.0])
    random, uniform, oracle = compare(STUDY, places(tmp_path / "here"), kept)
    assert oracle["intervals_from"] == random["intervals_from"] == "recorded"
    assert {key: oracle[key] for key in old if key != "intervals_from"} == {
        key: value for key, value in old.items() if key != "intervals_from"
    }
    assert uniform["psnr_db"] == pytest.approx(25.83, abs=0.01) and "gain_db" not in uniform
    text = table(tmp_path / "here", kept)
    assert "]* | +1.17, +1.17 |" in text and "\\* Recorded earlier, at abc1234: the values by image were not" in text


def test_rows_on_different_images_are_rejected(tmp_path):
    train(tmp_path, "random", [20.0, 25.0])
    train(tmp_path, "oracle", [20.0, 25.0], names="ax")
    with pytest.raises(UserError, match="oracle and random were tested on different images"):
        compare(STUDY, places(tmp_path))


def test_images_of_a_different_run_are_rejected(tmp_path):
    train(tmp_path / "there", "random", [20.0, 25.0])
    keep(tmp_path / "there", tmp_path / "kept")
    path = tmp_path / "kept" / "study_images.csv"
    path.write_text(path.read_text().replace("random1", "other"))
    with pytest.raises(UserError, match=r"random, seed 1 matches no run of study.csv"):
        read_saved_results(tmp_path / "kept", "study")


def test_diverged_run_is_saved(tmp_path):
    train(tmp_path / "there", "oracle", [21.0, 26.0], seeds=(0,))
    (tmp_path / "there" / "oracle" / "1").mkdir()
    (tmp_path / "there" / "oracle" / "1" / "diverged.json").write_text(json.dumps({"command": "c", "commit": "d"}))
    keep(tmp_path / "there", tmp_path / "kept")
    *_, oracle = compare(STUDY, places(tmp_path / "nowhere"), read_saved_results(tmp_path / "kept", "study"))
    assert oracle["diverged_seeds"] == 1 and oracle["psnr_db"] == 23.5
