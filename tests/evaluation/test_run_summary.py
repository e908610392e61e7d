"""`summary.json` of a run."""

import json

import pytest

from sapnet.evaluation.run_summary import write_summary
from sapnet.provenance import KEYS


def test_a_summary_has_no_infinity(tmp_path):
    write_summary(tmp_path, None, 1.26, {"gain_ci95": [float("-inf"), float("inf")], "gain_db": 1.5})
    text = (tmp_path / "summary.json").read_text()
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert summary["gain_ci95"] == [None, None] and summary["gain_db"] == 1.5 and summary["run_seconds"] == 1.3


def test_the_checkpoint_is_named_from_the_folder(tmp_path):
    written = write_summary(tmp_path / "b", tmp_path / "a" / "best.ckpt", 1.0, None, {"psnr": 20.0})
    assert written["checkpoint"] == "../a/best.ckpt" and written["validation"] == {"psnr": 20.0}
    assert tuple(written["provenance"]) == KEYS and "stage_psnr" not in written
    assert json.loads((tmp_path / "b" / "summary.json").read_text()) == written
