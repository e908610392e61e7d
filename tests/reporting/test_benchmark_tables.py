"""Tables 1 and 2: quoted and measured values."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from sapnet.configs import CONFIG_DIR
from sapnet.errors import UserError
from sapnet.evaluation.runner import PROTOCOLS
from sapnet.reporting.benchmark_tables import (
    BenchmarkStudy,
    TestSet,
    as_markdown,
    quoted_lines,
    read_benchmark,
    summarise,
)
from sapnet.reporting.runs import RunStore
from sapnet.reporting.study import Study, read_study
from sapnet.reporting.study_tables import as_csv

EXPERIMENTS = CONFIG_DIR.parent / "experiments"


def paper(table: int, name: str) -> dict[str, dict]:
    benchmark = read_benchmark(EXPERIMENTS / f"table{table}.yaml")
    test = next(test for test in benchmark.sets if test.name == name)
    return {line["row"]: line for line in quoted_lines(benchmark, test)}


@pytest.mark.parametrize(
    ("table", "name", "ours", "gains"),
    [
        (1, "GoPro", "Ours_u_b", (0.31, 0.1, 0.74)),
        (2, "HIDE", "Ours_u", (1.09, 0.13, 1.11)),
        (2, "RealBlur-R", "Ours_u", (0.62, 0.17, 0.28)),  # the text has 0.49 for the first
        (2, "RealBlur-J", "Ours_u", (1.26, 0.19, 0.27)),
    ],
)
def test_quoted_values_agree_with_the_gains_in_the_text_of_the_paper(table, name, ours, gains):
    """The text gives gains over MIMO+, MPRNet and the uniform network, which verifies the copied values."""
    lines = paper(table, name)
    assert len(lines) == {1: 16, 2: 11}[table]
    keys = {"set", "row", "origin", "paper_psnr_db", "paper_ssim"} | ({"paper_runtime_s"} if table == 1 else set())
    assert all(line.keys() == keys for line in lines.values())
    result = [lines["Ours_nu"]["paper_psnr_db"] - lines[row]["paper_psnr_db"] for row in ("MIMO+", "MPRNet", ours)]
    assert result == pytest.approx(gains, abs=1e-6)
    assert all(0.7 < line["paper_ssim"] < 0.97 for line in lines.values())


def test_tables_share_runs():
    runs, same = RunStore(Path("runs")), {"SRN": "SRN", "DMPHN": "DMPHN", "Ours_u": "Ours_u_b", "Ours_nu": "Ours_nu"}
    for scale in ("paper", "mini"):
        one, two = (read_study(EXPERIMENTS / f"table{n}.yaml", scale) for n in (1, 2))
        assert two.rows.keys() == same.keys()
        for row, other in same.items():
            assert runs.folder(two.overrides(row, 0)) == runs.folder(one.overrides(other, 0))


def test_official_and_derived_pairs_are_separate():
    official, derived = read_benchmark(EXPERIMENTS / "table1.yaml").sets
    names = [f"GOPR0384_11_00/{n:06d}" for n in (1, 14, 100, 203, 386)] + ["GOPR0410_11_00/000203"]
    assert [official.contains(name) for name in names] == [True, True, True, False, False, True]
    assert [derived.contains(name) for name in names] == [False, False, False, True, True, False]
    assert official.paper and derived.paper is None, "the paper has no figure on the derived ones"


def lines(values, protocol="standard", **more):
    return [
        {
            **{"name": f"{i}", "input_psnr": 20.0 + i, "input_ssim": 0.5, "stage_psnr": [0.0, value]},
            **{"stage_ssim": [0.0, 0.9], "seconds": 1.0 + i, "device": "cpu", "device_name": "x", "threads": 2},
            **{"dtype": "float32", "width": 40, "height": 30, "protocol": PROTOCOLS[protocol], **more},
        }
        for i, value in enumerate(values)
    ]


def test_summary_has_means_an_interval_and_a_median_time():
    result = summarise(lines([30.0, 31.0, 35.0, 28.0]))
    assert result["psnr_db"] == 31 and result["ssim_matlab3d"] == pytest.approx(0.9) and result["runtime_s"] == 2.5
    assert 28 <= result["psnr_ci95_low_db"] < 31 < result["psnr_ci95_high_db"] <= 35
    assert result["input_psnr_db"] == 21.5 and result["images"] == 4 and "runtime_unsynchronised_s" not in result
    assert result["device"] == "x, 2 threads, float32, 40x30"
    equal = summarise(lines([30.0, np.inf, 32.0], device="cuda", tf32_convolutions=True, seconds_unsynchronised=0.1))
    assert equal["psnr_db"] == 31 and equal["images"] == 2 and equal["images_equal_to_truth"] == 1
    assert equal["runtime_unsynchronised_s"] == 0.1 and "TF32" in equal["device"]
    assert "psnr_ci95_low_db" not in summarise(lines([30.0])), "one image says nothing of others"
    with pytest.raises(UserError, match="so there is no mean"):
        summarise(lines([np.inf]))


def test_ssim_of_realblur_has_a_different_name():
    result = summarise(lines([30.0, 31.0], "realblur", unregistered=[False, True, False]))
    assert "ssim_matlab3d" not in result and result["ssim_gaussian_registered"] == pytest.approx(0.9)
    assert result["images_unregistered"] == 2 and "ECC" in result["protocol"]


def rendered(result: list[dict], *more: dict) -> str:
    study = Study("Title", "A", (0,), {"A": [], "B": []}, paper={"A": {"paper_psnr_db": 33.25}}, notes=("A slip.",))
    tests = (TestSet("Set", ("S",), (), "paper_"), TestSet("Derived", ("S",), (), remark="No test images."))
    benchmark = BenchmarkStudy(study, {"Other": {"paper_psnr_db": 29.0, "paper_ssim": 0.9}}, tests)
    return as_markdown(benchmark, [*quoted_lines(benchmark, tests[0]), *result, *more], {"Commit": "abc"})


def made(**more) -> dict:
    return {
        **{"set": "Set", "row": "A", "origin": "mini scale, seed 0", "remark": "", "checkpoint": "c0ffee"},
        **{"command": "python -m x", "commit": "abc", "images_of": 1111, **summarise(lines([30.0, 31.0])), **more},
    }


def test_measured_values_have_their_own_columns():
    derived = made(set="Derived", images_of=None)
    other = made(row="B", origin="given", remark="chosen on test images", runtime_unsynchronised_s=0.25)
    text = rendered([made(), made(origin="mini scale, seed 1"), other, derived])
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    head, rows = table[0], {(row[0], row[3]): row for row in table[2:9]}
    assert head[1:3] == ["paper's PSNR dB", "paper's SSIM"] and "paper's s" not in head
    ours = ["2 of 1111", "30.50 [30.00, 31.00]", "0.9000", "1.500"]
    assert rows["A", "mini scale, seed 0"] == ["A", "33.25", "", "mini scale, seed 0", *ours]
    assert rows["", "mini scale, seed 1"] == ["", "", "", "mini scale, seed 1", *ours]
    assert rows["B", "given"] == ["B", "", "", "given", *ours[:3], "1.500 (0.250 unsynchronised)"]
    assert rows["Other", "quoted only"] == ["Other", "29.00", "0.900", "quoted only", "", "", "", ""]
    assert rows["blurred input", "unrestored"][4:7] == ["2 of 1111", "20.50", "0.5000"]
    assert "- B, given: checkpoint c0ffee; x, 2 threads, float32, 40x30; chosen on test images; `python -m x`" in text
    assert "ssim_matlab3d" in text and "- A slip." in text and "Commit: abc" in text
    after = text.partition("### Derived")[2]
    assert "No test images." in after and "1111" not in after and "33.25" not in after


def test_missing_and_failed_results_are_reported():
    missing = {"set": "Set", "row": None, "origin": None, "remark": "not there: no folder S."}
    text = rendered([missing])
    assert "not there: no folder S." in text and "| A | 33.25 |" in text and "measured here" not in text
    assert "Derived" not in text
    failed = {"set": "Set", "row": "A", "origin": "failed: given", "remark": "damaged."}
    none = [{"set": "Set", "row": row, "origin": "not trained", "remark": "train it"} for row in ("A", "B")]
    text = rendered([*none, failed])
    assert "| A | 33.25 |  | not trained |" in text and "- A, B: not trained; train it" in text
    assert "|  |  |  | failed: given |" in text and "- A: failed: given; damaged." in text


def test_csv_has_separate_columns_for_the_paper():
    benchmark = read_benchmark(EXPERIMENTS / "table1.yaml")
    result = list(csv.DictReader(io.StringIO(as_csv([*quoted_lines(benchmark, benchmark.sets[0]), made()]))))
    assert len(result) == 17
    for line in result:
        assert (line["psnr_db"] == "") == (line["origin"] == "quoted") and (line["paper_psnr_db"] == "") == (
            line["origin"] != "quoted"
        )


def test_study_without_test_sets_is_rejected():
    with pytest.raises(UserError, match=r"table4: it has no test sets; use sapnet reproduce"):
        read_benchmark(EXPERIMENTS / "table4.yaml")
