"""Comparison of a training step between two checkouts."""

import pytest

from benchmarks.against import _HERE, main, measure, report


@pytest.mark.slow
def test_checkout_is_compared_with_itself():
    result = measure(_HERE, "sampling=uniform_network", rounds=3)
    assert result["rounds"] == 3
    for clock in ("wall", "processor"):
        low, high = result[clock]["quartiles"]
        assert low <= result[clock]["ratio"] <= high
    assert result["processor"]["ratio"] == pytest.approx(1, abs=0.3)
    text = report({"commit": "here", "other": "there", "steps": [{"model": "U", **result}]})
    assert "| mini step | clock | here, ms | there, ms | times as fast |" in text and text.count("| U |") == 2


def test_folder_without_checkout_is_rejected(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(tmp_path)])
    assert "is not a checkout of this project" in capsys.readouterr().err
