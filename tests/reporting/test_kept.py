"""A study that is continued from results that were kept: the same table as from the runs, and a run here wins."""

import json

import pytest

from sapnet.errors import UserError
from sapnet.evaluation.results_file import append_result
from sapnet.provenance import KEYS
from sapnet.reporting.kept import IMAGE_COLUMNS, read_kept, read_table, write_kept
from sapnet.reporting.points import all_images, ordered, run_lines
from sapnet.reporting.render import as_csv, as_markdown, gains_table
from sapnet.reporting.rows import Study, compare

STUDY = Study("Where", "random", (0, 1), {"random": [], "U": [], "oracle": []}, references=("U",))
GMACS = dict.fromkeys(STUDY.rows, 1.5)


def places(root):
    return lambda row, seed: root / row / str(seed)


def train(root, row, values, seeds=(0, 1), commit="abc1234", names="abc"):
    """What a finished run leaves; values by image, which rise with the seed."""
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
    write_kept(folder, "study", files)


def table(root, kept=None):
    lines = compare(STUDY, places(root), kept)
    return as_markdown(STUDY, lines, {}) + gains_table(STUDY, lines, "U")


def test_kept_results_make_the_same_table_as_the_runs(tmp_path):
    train(tmp_path / "here", "random", [20.0, 25.0, 31.0])
    train(tmp_path / "here", "U", [20.5, 25.0, 31.0])
    train(tmp_path / "here", "oracle", [21.0, 25.5, 33.0])
    keep(tmp_path / "here", tmp_path / "kept")
    expected, kept = table(tmp_path / "here"), read_kept(tmp_path / "kept", "study")
    assert "| oracle | 27.00 ± 0.71 |" in expected and "| oracle | +1.00 [" in expected
    assert table(tmp_path / "nowhere", kept) == expected
    before = {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    keep(tmp_path / "nowhere", tmp_path / "kept", kept)
    assert {path.name: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == before
    first = read_table(tmp_path / "kept" / "study_images.csv")[0]
    assert tuple(first) == IMAGE_COLUMNS and first["image"] == "a" and first["config_hash"] == "random0"
    run = read_table(tmp_path / "kept" / "study.csv")[0]
    assert tuple(run)[-4:] == KEYS and run["versions"] == "python 3, torch 2, sapnet 0" and run["steps"] == 7


def test_a_study_goes_on_where_the_other_machine_stopped(tmp_path):
    """One seed of a row there, the other here; a row that is in both is taken from here."""
    train(tmp_path / "there", "random", [20.0, 25.0])
    train(tmp_path / "there", "oracle", [21.0, 26.0], seeds=(0,))
    keep(tmp_path / "there", tmp_path / "kept")
    kept = read_kept(tmp_path / "kept", "study")
    train(tmp_path / "here", "oracle", [21.0, 26.0], seeds=(1,))
    train(tmp_path / "here", "random", [19.0, 24.0], commit="newer")
    random, uniform, oracle = compare(STUDY, places(tmp_path / "here"), kept)
    assert random["psnr_db"] == pytest.approx(22.0) and random["commit"] == "newer"
    assert oracle["gain_db"] == pytest.approx(2) and oracle["gain_by_seed_db"] == pytest.approx([2, 2])
    assert oracle["intervals_from"] == "images" and "psnr_db" not in uniform
    keep(tmp_path / "here", tmp_path / "kept", kept)
    assert len(read_kept(tmp_path / "kept", "study").images) == 4


def test_a_row_without_values_by_image_is_quoted_as_it_was_recorded(tmp_path):
    train(tmp_path / "there", "random", [20.0, 25.0, 31.0])
    train(tmp_path / "there", "oracle", [21.0, 25.5, 33.0])
    keep(tmp_path / "there", tmp_path / "kept")
    (tmp_path / "kept" / "study_images.csv").unlink()
    old = compare(STUDY, places(tmp_path / "there"))[2]
    kept = read_kept(tmp_path / "kept", "study")
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


def test_rows_on_different_images_are_not_paired(tmp_path):
    train(tmp_path, "random", [20.0, 25.0])
    train(tmp_path, "oracle", [20.0, 25.0], names="ax")
    with pytest.raises(UserError, match="oracle and random were tested on different images"):
        compare(STUDY, places(tmp_path))


def test_images_of_another_run_are_refused(tmp_path):
    train(tmp_path / "there", "random", [20.0, 25.0])
    keep(tmp_path / "there", tmp_path / "kept")
    path = tmp_path / "kept" / "study_images.csv"
    path.write_text(path.read_text().replace("random1", "other"))
    with pytest.raises(UserError, match=r"random, seed 1 belongs to no run of study.csv"):
        read_kept(tmp_path / "kept", "study")


def test_a_run_that_diverged_is_kept_too(tmp_path):
    train(tmp_path / "there", "oracle", [21.0, 26.0], seeds=(0,))
    (tmp_path / "there" / "oracle" / "1").mkdir()
    (tmp_path / "there" / "oracle" / "1" / "diverged.json").write_text(json.dumps({"command": "c", "commit": "d"}))
    keep(tmp_path / "there", tmp_path / "kept")
    *_, oracle = compare(STUDY, places(tmp_path / "nowhere"), read_kept(tmp_path / "kept", "study"))
    assert oracle["diverged_seeds"] == 1 and oracle["psnr_db"] == 23.5
