import json

import numpy as np
import pytest

from sapnet.errors import UserError
from sapnet.evaluation.store import append_result
from sapnet.reporting.rows import Study, as_markdown, compare, read_study

STUDY = Study("Where", "random", (0, 1), {"random": ["sampling=random"], "oracle": ["sampling=oracle"]}, ["steps=1"])


def write(folder, row, seed, values):
    for i, value in enumerate(values):
        line = {"name": f"{i:03d}", "stage_psnr": [0.0, value]}
        append_result(folder / row / f"seed{seed}" / "results.jsonl", line)


def test_gains_are_paired_by_image_and_seed(tmp_path):
    base = np.array([20.0, 25.0, 31.0])
    for seed in (0, 1):
        write(tmp_path, "random", seed, base + seed)
        write(tmp_path, "oracle", seed, base + seed + 0.5)
    random, oracle = compare(STUDY, tmp_path)
    assert random["psnr_db"] == pytest.approx(base.mean() + 0.5) and "gain_db" not in random
    assert random["seed_sd_db"] == pytest.approx(np.sqrt(0.5))
    assert oracle["gain_db"] == pytest.approx(0.5) and oracle["ci95"] == pytest.approx([0.5, 0.5])
    assert oracle["gain_by_seed_db"] == pytest.approx([0.5, 0.5])


def test_a_row_without_a_result_says_so(tmp_path):
    for seed in (0, 1):
        write(tmp_path, "random", seed, [20.0, 21.0])
    write(tmp_path, "oracle", 0, [22.0, 23.0])  # the second seed is missing
    text = as_markdown(STUDY, compare(STUDY, tmp_path), {"Seeds": "0, 1"})
    assert "| oracle | no result yet | | |" in text and "Seeds: 0, 1" in text


def test_unknown_studies_and_scales_are_named(tmp_path):
    content = {"title": "t", "reference": "a", "seeds": [0], "rows": {"a": []}, "scales": {"mini": []}}
    (tmp_path / "known.yaml").write_text(json.dumps(content))
    with pytest.raises(UserError, match="known"):
        read_study(tmp_path / "unknown.yaml", "mini")
    with pytest.raises(UserError, match="mini"):
        read_study(tmp_path / "known.yaml", "paper")


def studied(tmp_path, rows):
    content = {"title": "t", "reference": "a", "seeds": [0], "rows": rows, "scales": {"mini": ["steps=1"]}}
    (tmp_path / "table.yaml").write_text(json.dumps(content))
    return read_study(tmp_path / "table.yaml", "mini")


def test_a_row_may_carry_the_papers_figures(tmp_path):
    study = studied(tmp_path, {"a": ["seed=1"], "b": {"overrides": ["model=net5"], "paper_psnr_db": 31.04}})
    assert study.rows == {"a": ["seed=1"], "b": ["model=net5"]}
    assert study.paper == {"b": {"paper_psnr_db": 31.04}}
    write(tmp_path, "b", 0, [22.0, 23.0])
    text = as_markdown(study, compare(study, tmp_path), {})
    assert "by seed | paper, dB |\n| --- | --- | --- | --- | --- |" in text
    assert "| a | no result yet | | |  |" in text and "| b | 22.500 |  |  | 31.04 |" in text


@pytest.mark.parametrize(
    "row", ["model=net5", {"paper_psnr_db": 30}, {"overrides": [], "psnr": 30}, {"overrides": None}]
)
def test_a_row_that_is_neither_is_refused_by_its_name(tmp_path, row):
    with pytest.raises(UserError, match=r"table.yaml, row odd"):
        studied(tmp_path, {"odd": row})
