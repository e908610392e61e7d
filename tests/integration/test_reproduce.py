import json

import pytest

from tests.integration.conftest import run

pytestmark = pytest.mark.slow


def test_a_study_is_trained_rendered_and_not_repeated(tmp_path):
    words = ["sapnet.reproduce", "table=controls", "scale=smoke", "row=NU-oracle", f"root={tmp_path}/out", "jobs=1", "seeds=[0]"]
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "out" / "controls" / "smoke"
    table = (folder / "table.md").read_text()
    assert "SMOKE" in table and "| NU-random | no result yet" in table
    lines = {line["row"]: line for line in json.loads((folder / "table.json").read_text())["lines"]}
    assert lines["NU-oracle"]["images"] == 3
    stamp = (folder / "NU-oracle" / "seed0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    assert run(*words, cwd=tmp_path).returncode == 0
    assert (folder / "NU-oracle" / "seed0" / "checkpoints" / "last.ckpt").stat().st_mtime_ns == stamp
