import json

import pytest

from sapnet.evaluation.results_file import append_result
from sapnet.reporting.run_tables import COLUMNS, as_markdown, ordered, run_lines
from sapnet.reporting.study import Study

STUDY = Study("Where", "U", (0, 1), {"U": [], "NU": []}, points=True)


def write(folder, row, seed, psnr, maps=None):
    place = folder / row / str(seed)
    for image in range(2):
        line = {"name": str(image), "input_psnr": 20.0 + image, "stage_psnr": [21.0 + image, psnr + image]}
        append_result(place / "results.jsonl", line | {"generator_steps": 500, "seconds": 0.5})
    (place / "done.json").write_text("{}")
    if maps is not None:
        (place / "policy.json").write_text(json.dumps(maps))


def maps(error, extent, draw):
    def row(stage, score, truth, auc):
        return {"stage": stage, "score": score, "truth": truth, "auc": auc}

    agreement = [row(stage, "map", "error", error + 0.1 * (stage - 2.5)) for stage in (2, 3)]
    agreement += [row(2, "map", "extent", extent), row(2, "gradient", "error", 0.6)]
    return {"agreement": agreement, "samplers": [], "inference": [{"inference": "draw", "psnr": draw}]}


def test_run_lines_are_means_over_images_and_sampled_stages(tmp_path):
    write(tmp_path, "U", 0, 22.0)
    write(tmp_path, "NU", 0, 23.0, maps(0.8, 0.7, 22.5))
    (tmp_path / "NU" / "1").mkdir()
    (tmp_path / "NU" / "1" / "diverged.json").write_text("{}")
    lines = run_lines(STUDY, lambda row, seed: tmp_path / row / str(seed), {"U": 1.0, "NU": 1.01})
    assert [(line["row"], line["seed"]) for line in lines] == [("U", 0), ("NU", 0), ("NU", 1)]
    uniform, sampled, diverged = lines
    assert "auc_error" not in uniform and uniform["psnr_db"] == 22.5 and uniform["stage2_gain_db"] == 1
    assert sampled["auc_error"] == pytest.approx(0.8) and sampled["auc_extent"] == pytest.approx(0.7)
    assert sampled["psnr_draw_db"] == 22.5 and sampled["gmacs"] == 1.01 and sampled["steps"] == 500
    assert diverged.items() >= {"row": "NU", "seed": 1, "diverged": 1}.items() and "psnr_db" not in diverged


def test_markdown_has_means_over_seeds_and_diverged_runs(tmp_path):
    for seed, psnr in ((0, 22.0), (1, 24.0)):
        write(tmp_path, "NU", seed, psnr, maps(0.8, 0.7, 22.5))
    lines = run_lines(STUDY, lambda row, seed: tmp_path / row / str(seed), {"U": 1.0, "NU": 1.01})
    text = as_markdown([*lines, {"row": "U", "seed": 0, "diverged": 1}])
    assert "23.500 ± 1.414" in text and "0.800 ± 0.000" in text and "| U | 1, 1 diverged |" in text
    assert tuple(ordered(lines)[0])[: len(COLUMNS)] == COLUMNS
