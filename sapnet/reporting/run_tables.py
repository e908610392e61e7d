"""Tables of the runs of a study: PSNR, the gain of each stage, and the agreement of the samplers' maps."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sapnet.evaluation.result_contexts import context_of, read_evaluation
from sapnet.markdown import markdown_table
from sapnet.provenance import KEYS, NOT_RECORDED, as_columns
from sapnet.reporting.comparison import FolderOf, read_run
from sapnet.reporting.saved_results import SavedResults, image_lines
from sapnet.reporting.study import Study


def run_lines(
    study: Study, folder_of: FolderOf, gmacs: Mapping[str, float], saved: SavedResults | None = None
) -> list[dict[str, Any]]:
    """Return one line per finished run of a study.

    Keys:
        `row`, `seed`, `steps`;
        `gmacs`: for 3x256x256 at the widths of the run;
        `psnr_db`: of the last stage with the points of inference;
        `psnr_draw_db`, `psnr_dither_db`: the same with points drawn as in training, or dithered;
        `auc_error`, `auc_extent`: AUC of the sampler's map as a detector of the quarter of the pixels with the largest
        error before the stage, or the largest blur extent; mean over images and sampled stages;
        `gradient_auc_error`, `gradient_auc_extent`: the same of the image gradient;
        `stage<k>_gain_db`: PSNR of a stage minus that of its input;
        `runtime_s`: median over images;
        and the provenance. A diverged run has only `diverged` and its provenance.

    Args:
        study: The study.
        folder_of: Folders of the runs.
        gmacs: Multiply-adds in 1e9 by row.
        saved: Results of runs that have no finished folder.
    """
    lines = []
    for row in study.rows:
        for seed in study.seeds:
            folder = folder_of(row, seed)
            line: dict[str, Any] = {"row": row, "seed": seed}
            if (folder / "diverged.json").is_file():
                lines.append(line | {"diverged": 1} | _origin(folder / "diverged.json"))
            elif (folder / "done.json").is_file():
                results = _results(folder, gmacs[row], study.checkpoint_kind(row)) | _maps(folder / "policy.json")
                lines.append(line | results | _origin(folder / "done.json"))
            elif saved is not None and (row, seed) in saved.runs:
                lines.append(saved.runs[row, seed])
    return lines


def _results(folder: Path, gmacs: float, kind: str) -> dict[str, Any]:
    lines = read_evaluation(folder / "results.jsonl", kind)
    stages = np.array([[line["input_psnr"], *line["stage_psnr"]] for line in lines]).mean(axis=0)
    gains = {f"stage{k}_gain_db": float(gain) for k, gain in enumerate(np.diff(stages), start=1)}
    seconds = float(np.median([line["seconds"] for line in lines]))
    values = {"steps": lines[0]["generator_steps"], "gmacs": gmacs, "psnr_db": float(stages[-1])}
    checkpoint = f"{context_of(lines[0])['checkpoint_kind']}, {lines[0]['generator_steps']} steps"
    return {**values, **gains, "runtime_s": seconds, "evaluated_checkpoint": checkpoint}


def _origin(path: Path) -> dict[str, str]:
    return as_columns(json.loads(path.read_text()))


def all_images(study: Study, folder_of: FolderOf, saved: SavedResults | None = None) -> list[dict[str, Any]]:
    """Return one line per run and test image, for the runs of `run_lines` with results by image."""
    lines = []
    for row in study.rows:
        for seed in study.seeds:
            folder = folder_of(row, seed)
            results = read_run(folder, study.checkpoint_kind(row))
            if results is None:
                lines += [] if saved is None else saved.images.get((row, seed), [])
            elif not results.diverged:
                lines += image_lines(row, seed, results, _origin(folder / "done.json")["config_hash"])
    return lines


def _maps(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    study = json.loads(path.read_text())
    by_mode = {row["inference"]: row["psnr"] for row in study["inference"]}
    line = {f"psnr_{mode}_db": by_mode[mode] for mode in ("draw", "dither") if mode in by_mode}
    for score, name in (("map", "auc"), ("gradient", "gradient_auc")):
        for truth in ("error", "extent"):
            values = [r["auc"] for r in study["agreement"] if (r["score"], r["truth"]) == (score, truth)]
            values = [value for value in values if np.isfinite(value)]
            if values:
                line[f"{name}_{truth}"] = float(np.mean(values))
    return line


#: First columns of the table of runs, followed by the gains of the stages.
COLUMNS = ("row", "seed", "steps", "gmacs", "psnr_db", "psnr_draw_db", "auc_error", "auc_extent")
_SHOWN = (
    ("gmacs", "GMACs", ".2f"),
    ("psnr_db", "PSNR dB", ".3f"),
    ("psnr_dither_db", "dithered", ".3f"),
    ("psnr_draw_db", "drawn", ".3f"),
    ("auc_error", "AUC, error", ".3f"),
    ("auc_extent", "AUC, extent", ".3f"),
    ("gradient_auc_error", "gradient's, error", ".3f"),
    ("gradient_auc_extent", "gradient's, extent", ".3f"),
)


def ordered(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the lines with the columns of `COLUMNS` first, empty where a value is missing, and the provenance last."""
    return [
        {key: line.get(key, "") for key in COLUMNS}
        | {key: value for key, value in line.items() if key not in KEYS}
        | {key: line.get(key, NOT_RECORDED) for key in KEYS}
        for line in lines
    ]


def as_markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return means and standard deviations over seeds as Markdown, one line per row of the study."""
    stages = sorted({key for line in lines for key in line if key.startswith("stage")})
    shown = [*_SHOWN, *((key, f"stage {key.removeprefix('stage').split('_')[0]} adds, dB", "+.3f") for key in stages)]
    shown = [column for column in shown if any(column[0] in line for line in lines)]
    rows = []
    for row in dict.fromkeys(line["row"] for line in lines):
        own = [line for line in lines if line["row"] == row]
        diverged = sum("diverged" in line for line in own)
        cells = [row, f"{len(own)}" + (f", {diverged} diverged" if diverged else "")]
        for key, _, form in shown:
            values = [line[key] for line in own if key in line]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 and key != "gmacs" else ""
            cells.append(f"{np.mean(values):{form}}{spread}" if values else "")
        rows.append(cells)
    return markdown_table(["row", "seeds", *(heading for _, heading, _ in shown)], rows) + "\n"
