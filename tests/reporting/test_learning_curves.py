"""Learning curves are read from finished runs, kept, and compared with a reference on the same crops."""

import json

import numpy as np

from sapnet.reporting.learning_curves import _relative, curve_lines, curves_chart
from sapnet.reporting.study import Study

STUDY = Study("t", "A", (0, 1), {"A": ["x=1"], "B": ["x=2"]})


def write_run(folder, losses, finished=True):
    folder.mkdir()
    # A validation has a line of its own, without a loss.
    rows = [f"{50 * k},{loss}," for k, loss in enumerate(losses, start=1)]
    (folder / "metrics.csv").write_text("\n".join(["generator_steps,train/loss,val/psnr", *rows, "100,,30.5"]) + "\n")
    if finished:
        origin = {"command": "c", "commit": "a", "config_hash": "h", "versions": {"torch": "2"}}
        (folder / "done.json").write_text(json.dumps(origin))


def test_finished_runs_replace_saved_lines_and_others_are_kept(tmp_path):
    write_run(tmp_path / "A0", [0.5, 0.25])
    write_run(tmp_path / "A1", [0.9], finished=False)
    saved = [{"row": "A", "seed": seed, "step": 50, "loss": 0.125} for seed in (0, 1)]
    lines = curve_lines(STUDY, lambda row, seed: tmp_path / f"{row}{seed}", saved)
    assert lines == [
        {"row": "A", "seed": 0, "step": 50, "loss": 0.5, "config_hash": "h"},
        {"row": "A", "seed": 0, "step": 100, "loss": 0.25, "config_hash": "h"},
        saved[1],
    ]


def test_a_curve_is_the_mean_log_ratio_to_the_same_seed_at_common_steps():
    own = {0: {50: 2.0, 100: 4.0, 150: 1.0, 200: 1.0}, 1: {50: 1.0, 100: 1.0, 150: 1.0}, 2: {50: 9.0}}
    reference = {0: dict.fromkeys((50, 100, 150), 1.0), 1: dict.fromkeys((50, 100, 150, 200), 0.5)}
    steps, ratios = _relative(own, reference)
    assert steps.tolist() == [150]
    np.testing.assert_allclose(ratios, [[1.0], [1.0]])


def test_only_rows_with_common_seeds_are_drawn():
    lines = [{"row": row, "seed": 0, "step": 50, "loss": loss} for row, loss in (("A", 0.5), ("B", 0.25))]
    assert curves_chart(lines, "A", ["B", "C"]).shape[2] == 3
    assert curves_chart(lines, "C", ["A", "B"]) is None
    assert curves_chart([*lines[:1], {**lines[1], "seed": 1}], "A", ["B"]) is None
