import json

import pytest

from tests.integration.conftest import run

pytestmark = pytest.mark.slow


def test_a_study_is_trained_rendered_and_not_repeated(tmp_path):
    words = ["sapnet.reproduce", "table=controls", "scale=smoke", "row=NU-oracle", f"root={tmp_path}/out", "seeds=[0]"]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "controls" / "smoke"
    table = (folder / "table.md").read_text()
    assert "SMOKE" in table and "| NU-random | no result yet" in table
    assert (folder / "table.csv").read_text().startswith("row,")
    lines = {line["row"]: line for line in json.loads((folder / "table.json").read_text())["lines"]}
    assert lines["NU-oracle"]["images"] == 3
    stamp = (folder / "NU-oracle" / "seed0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert run(*words, cwd=tmp_path).returncode == 0
    assert (folder / "NU-oracle" / "seed0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == stamp


def test_a_training_that_was_killed_is_not_taken_for_done(tmp_path):
    words = ["sapnet.reproduce", "table=controls", "scale=smoke", "row=U", f"root={tmp_path}/out", "seeds=[0]"]
    done = run(*words, 'overrides=["data.crop=512"]', cwd=tmp_path)
    assert done.returncode == 1 and "crop" in done.stderr.splitlines()[-1]
    folder = tmp_path / "out" / "controls" / "smoke"
    assert "| U | no result yet" in (folder / "table.md").read_text()
    assert not (folder / "U" / "seed0" / "done.json").exists()
    assert run(*words, cwd=tmp_path).returncode == 0
    assert "no result yet" not in (folder / "table.md").read_text().split("| U |")[1].split("|")[0]


@pytest.mark.parametrize("launcher", [["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local"]])
def test_rows_go_through_a_hydra_launcher(launcher, tmp_path):
    """Several processes here; SLURM's launcher by its local mode, which runs the same code."""
    words = ["--multirun", "table=4", "scale=smoke", "row=Baseline,Net9", f"root={tmp_path}/out", "jobs=1"]
    done = run("sapnet.reproduce", *words, f"hydra/launcher={launcher[0]}", *launcher[1:], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = sorted(path.parent.parent.name for path in (tmp_path / "out" / "table4" / "smoke").glob("*/seed0/done.json"))
    assert made == ["Baseline", "Net9"]
