"""The runs of a study of sampling one by one: PSNR, its gain by stage, and what the maps agree with."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sapnet.evaluation.result_contexts import context_of, read_evaluation
from sapnet.provenance import KEYS, NOT_RECORDED, as_columns
from sapnet.reporting.kept import Kept, image_lines
from sapnet.reporting.rows import Study, collect


def run_lines(
    study: Study, folder_of: Callable[[str, int], Path], gmacs: Mapping[str, float], kept: Kept | None = None
) -> list[dict[str, Any]]:
    """Return one line per finished run of a study, here or, where there is none here, of those that were kept.

    Keys: ``row``, ``seed``, ``steps``, ``gmacs`` (3x256x256, at the widths of the run), ``psnr_db`` of the last stage
    with the points of inference, ``psnr_draw_db`` with a draw as in training, ``auc_error`` and ``auc_extent`` (of the
    sampler's map as a detector of the quarter of pixels with the largest error before the stage, and largest blur
    extent; mean over images and sampled stages), the same of the image gradient, ``psnr_dither_db``, and
    ``stage<k>_gain_db`` over what the stage was given; ``runtime_s``, the median over images, and where the run comes
    from. A run that diverged has ``diverged`` and its origin alone.
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
            elif kept is not None and (row, seed) in kept.runs:
                lines.append(kept.runs[row, seed])
    return lines


def _results(folder: Path, gmacs: float, kind: str) -> dict[str, Any]:
    lines = read_evaluation(folder / "results.jsonl", kind)
    stages = np.array([[line["input_psnr"], *line["stage_psnr"]] for line in lines]).mean(axis=0)
    gains = {f"stage{k}_gain_db": float(gain) for k, gain in enumerate(np.diff(stages), start=1)}
    seconds = float(np.median([line["seconds"] for line in lines]))
    figures = {"steps": lines[0]["generator_steps"], "gmacs": gmacs, "psnr_db": float(stages[-1])}
    kind = f"{context_of(lines[0])['checkpoint_kind']}, {lines[0]['generator_steps']} steps"
    return {**figures, **gains, "runtime_s": seconds, "evaluated_checkpoint": kind}


def _origin(path: Path) -> dict[str, str]:
    return as_columns(json.loads(path.read_text()))


def all_images(study: Study, folder_of: Callable[[str, int], Path], kept: Kept | None = None) -> list[dict[str, Any]]:
    """Return a line per run and test image, of the runs of `run_lines` whose values by image are there."""
    lines = []
    for row in study.rows:
        for seed in study.seeds:
            folder = folder_of(row, seed)
            values = collect([folder], study.checkpoint_kind(row))
            if values is not None and len(values["kept"]):
                lines += image_lines(row, seed, values, _origin(folder / "done.json")["config_hash"])
            elif values is None and kept is not None:
                lines += kept.images.get((row, seed), [])
    return lines


def _maps(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = json.loads(path.read_text())
    by_mode = {row["inference"]: row["psnr"] for row in found["inference"]}
    line = {f"psnr_{mode}_db": by_mode[mode] for mode in ("draw", "dither") if mode in by_mode}
    for score, name in (("map", "auc"), ("gradient", "gradient_auc")):
        for truth in ("error", "extent"):
            values = [r["auc"] for r in found["agreement"] if (r["score"], r["truth"]) == (score, truth)]
            values = [value for value in values if np.isfinite(value)]
            if values:
                line[f"{name}_{truth}"] = float(np.mean(values))
    return line


#: Columns of a study's runs, in their order; stages' gains follow.
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
    """Return the lines with the columns of `COLUMNS` first, empty where there is nothing, and their origin last."""
    return [
        {key: line.get(key, "") for key in COLUMNS}
        | {key: value for key, value in line.items() if key not in KEYS}
        | {key: line.get(key, NOT_RECORDED) for key in KEYS}
        for line in lines
    ]


def as_markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return means over seeds with the deviation between seeds, a row of the study per line."""
    stages = sorted({key for line in lines for key in line if key.startswith("stage")})
    shown = [*_SHOWN, *((key, f"stage {key.removeprefix('stage').split('_')[0]} adds, dB", "+.3f") for key in stages)]
    shown = [column for column in shown if any(column[0] in line for line in lines)]
    text = [f"| row | seeds | {' | '.join(heading for _, heading, _ in shown)} |", "| --- " * (len(shown) + 2) + "|"]
    for row in dict.fromkeys(line["row"] for line in lines):
        own = [line for line in lines if line["row"] == row]
        diverged = sum("diverged" in line for line in own)
        cells = [f"{len(own)}" + (f", {diverged} diverged" if diverged else "")]
        for key, _, form in shown:
            values = [line[key] for line in own if key in line]
            spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 and key != "gmacs" else ""
            cells.append(f"{np.mean(values):{form}}{spread}" if values else "")
        text.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"
