"""Comparison of the rows of a study: means over seeds, and paired gains over the reference rows."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from sapnet.errors import UserError
from sapnet.evaluation.result_contexts import context_of, read_evaluation
from sapnet.evaluation.statistics import paired_interval
from sapnet.provenance import KEYS, as_columns
from sapnet.reporting.saved_results import RunResults, SavedResults
from sapnet.reporting.study import DEFAULT_KIND, PAPER, Study

#: Returns the folder of the run of a row with a seed.
FolderOf = Callable[[str, int], Path]


@dataclass(frozen=True)
class RowResults:
    """Test results of the runs of a row that did not diverge.

    Attributes:
        seeds: Positions of the runs in the seeds of the study.
        runs: Their results, on the same images.
        origins: Their provenance as table columns.
    """

    seeds: list[int]
    runs: list[RunResults]
    origins: list[dict[str, str]]

    @property
    def images(self) -> Sequence[str]:
        """Names of the test images."""
        return self.runs[0].images

    @property
    def psnr(self) -> Float[np.ndarray, "seeds images"]:
        """PSNR of the last stage in dB."""
        return np.array([run.psnr for run in self.runs])

    def psnr_of(self, seeds: Sequence[int]) -> Float[np.ndarray, "seeds images"]:
        """Return the PSNR in dB of the runs at some positions of the seeds."""
        return self.psnr[np.isin(self.seeds, seeds)]


def read_run(folder: Path, kind: str = DEFAULT_KIND) -> RunResults | None:
    """Read the results of a run.

    Args:
        folder: Folder of the run, with `results.jsonl` and, once it has finished, `done.json` or `diverged.json`.
        kind: Kind of the evaluated checkpoint.

    Returns:
        The results, or None if the run has not finished.

    Raises:
        UserError: The folder contains results of several evaluations.
    """
    if (folder / "diverged.json").is_file():
        return RunResults.of_diverged_run()
    lines = read_evaluation(folder / "results.jsonl", kind)
    if not lines or not (folder / "done.json").is_file():
        return None
    steps = f", {lines[0]['generator_steps']} steps" if "generator_steps" in lines[0] else ""
    return RunResults(
        [line["name"] for line in lines],
        np.array([float(line["stage_psnr"][-1]) for line in lines]),
        np.array([float(line["stage_ssim"][-1]) for line in lines]),
        np.array([float(line["seconds"]) for line in lines]),
        context_of(lines[0])["checkpoint_kind"] + steps,
    )


def read_row(study: Study, row: str, folder_of: FolderOf, saved: SavedResults | None = None) -> RowResults | None:
    """Read the results of all runs of a row.

    Args:
        study: The study.
        row: Name of the row.
        folder_of: Folders of the runs.
        saved: Results of runs that have no finished folder.

    Returns:
        The results, or None if a seed has none.

    Raises:
        UserError: A folder contains results of several evaluations, or the seeds were tested on different images.
    """
    results = RowResults([], [], [])
    for position, seed in enumerate(study.seeds):
        folder = folder_of(row, seed)
        run, marker = read_run(folder, study.checkpoint_kind(row)), folder / "done.json"
        origin = json.loads(marker.read_text()) if run is not None and marker.is_file() else {}
        if run is None and saved is not None:
            run, origin = saved.run_results(row, seed), saved.runs.get((row, seed), {})
        if run is None:
            return None
        if run.diverged:
            continue
        if results.runs and run.images != results.images:
            common = len(set(run.images) & set(results.images))
            raise UserError(
                f"{folder / 'results.jsonl'} contains {len(run.images)} images, of which {common} are among the"
                f" {len(results.images)} of the other seeds; repeat its evaluation."
            )
        results.seeds.append(position)
        results.runs.append(run)
        results.origins.append(as_columns(origin))
    return results


def compare(study: Study, folder_of: FolderOf, saved: SavedResults | None = None) -> list[dict[str, Any]]:
    """Return one line per row with mean values, the spread between seeds and the paired gains over the references.

    Keys end in their unit. Gains over the first reference start with `gain_`, over a further one with `gain_over_ROW_`.
    The confidence interval resamples images after the differences of each image are averaged over the seeds. It does
    not include the spread between seeds, which is a separate value. Diverged seeds are counted and excluded from all
    means; a gain is computed over the seeds that both rows have.

    A row without results has only its name and the paper's values. A row without results by image is copied as it was
    recorded, with `recorded` as `intervals_from`.

    Args:
        study: Rows and seeds.
        folder_of: Folders of the runs.
        saved: Results of runs that have no finished folder.

    Raises:
        UserError: The results of a row cannot be read, or two rows were tested on different images.
    """
    results = {row: read_row(study, row, folder_of, saved) for row in study.rows}
    lines = []
    for row, own in results.items():
        line: dict[str, Any] = {"row": row}
        recorded = None if saved is None or own is not None else saved.rows.get(row)
        if recorded is not None and recorded["seeds"] + recorded.get("diverged_seeds", 0) == len(study.seeds):
            line |= {key: value for key, value in recorded.items() if not key.startswith(PAPER)}
            line["intervals_from"] = "recorded"
        diverged = 0 if own is None else len(study.seeds) - len(own.runs)
        if diverged:
            line["diverged_seeds"] = diverged
        if own is not None and own.runs:
            line |= _means(own) | _origin(own.origins) | {"intervals_from": "images"}
            for reference in (study.reference, *study.references):
                if row != reference:
                    line |= _gain(study, row, own, reference, results.get(reference))
        lines.append(line | study.paper.get(row, {}))
    return lines


def gain_key(study: Study, reference: str) -> str:
    """Return the prefix of the keys of a gain over a reference row."""
    return "gain" if reference == study.reference else f"gain_over_{reference}"


def _gain(study: Study, row: str, own: RowResults, reference: str, other: RowResults | None) -> dict[str, Any]:
    if other is None:
        return {}
    common = sorted({*own.seeds} & {*other.seeds})
    if not common:
        return {}
    if own.images != other.images:
        raise UserError(f"{row} and {reference} were tested on different images: there is no paired gain.")
    difference, key = own.psnr_of(common) - other.psnr_of(common), gain_key(study, reference)
    interval = paired_interval(difference.mean(axis=0))
    return {
        f"{key}_db": interval.mean,
        f"{key}_ci95_low_db": interval.low,
        f"{key}_ci95_high_db": interval.high,
        f"{key}_by_seed_db": difference.mean(axis=1).tolist(),
    }


def _means(results: RowResults) -> dict[str, Any]:
    by_seed = results.psnr.mean(axis=1)
    return {
        "psnr_db": float(by_seed.mean()),
        "psnr_seed_sd_db": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
        "ssim_matlab3d": float(np.array([run.ssim for run in results.runs]).mean()),
        "runtime_s": float(np.median([np.median(run.seconds) for run in results.runs])),
        "images": len(results.images),
        "seeds": len(by_seed),
        "evaluated_checkpoint": "; ".join(dict.fromkeys(run.checkpoint for run in results.runs)),
    }


def _origin(origins: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    return {key: ", ".join(dict.fromkeys(origin[key] for origin in origins)) for key in KEYS}
