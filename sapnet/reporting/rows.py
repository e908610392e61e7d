"""A study: rows of overrides times seeds, and the table of their results."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from sapnet.errors import UserError
from sapnet.evaluation.result_contexts import context_of, read_evaluation
from sapnet.evaluation.statistics import paired_interval
from sapnet.provenance import KEYS, as_columns
from sapnet.reporting.kept import Kept

#: What the scales are, for all studies of a folder.
SCALES = "scales.yaml"
#: How the keys of the paper's figures begin: printed there, or derived from its text.
PAPER = ("paper_", "derived_")
#: The override that names the checkpoint that a row's results are of, and its default in conf/train.yaml.
EVALUATED, DEFAULT_KIND = "evaluate_checkpoint=", "best"


@dataclass(frozen=True)
class Study:
    """What a file of ``experiments/`` says.

    Attributes:
        title: Stands above the table.
        reference: The row that gains are measured against.
        seeds: Each row is trained once with each.
        rows: Overrides of `sapnet train` by the row's name.
        recipe: What the chosen scale puts before a row's overrides, by the row's name; empty without a scale.
        paper: The paper's figures of a row, by ``paper_<quantity>_<unit>`` where it prints them and by
            ``derived_<quantity>_<unit>`` where they follow from its text; empty where it gives none.
        notes: What a reader of the paper's figures should know; printed below the table.
        test: Overrides of `sapnet evaluate` where a row is tested on other data than that it was trained on.
        references: Further rows that gains are measured against.
        points: Whether the page also has the runs one by one, with what the samplers' maps agree with.
        scales: The names of the scales that it can be run at.
    """

    title: str
    reference: str
    seeds: tuple[int, ...]
    rows: dict[str, list[str]]
    recipe: dict[str, list[str]] = field(default_factory=dict)
    paper: dict[str, dict[str, float]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    points: bool = False
    scales: tuple[str, ...] = ()

    def overrides(self, row: str, seed: int) -> list[str]:
        """Return all overrides of one run of a row; ``{data}`` stands for the folder of the data sets."""
        return [*self.recipe.get(row, []), *self.rows[row], f"seed={seed}"]

    def checkpoint_kind(self, row: str) -> str:
        """Return which checkpoint a row's results are of: `best` or `last`."""
        return evaluated_kind([*self.recipe.get(row, []), *self.rows[row]])

    def changed(self, words: Sequence[str], data: Sequence[str]) -> "Study":
        """Return the study with further overrides in each recipe; those of data replace what the scale says of it."""
        recipe = {
            row: [*(word for word in overrides if not (data and _of_data(word))), *data, *words]
            for row, overrides in self.recipe.items()
        }
        return replace(self, recipe=recipe)


def evaluated_kind(words: Sequence[str]) -> str:
    """Return which checkpoint a training with these overrides evaluates."""
    kinds = [word.removeprefix(EVALUATED) for word in words if word.startswith(EVALUATED)]
    return kinds[-1] if kinds else DEFAULT_KIND


def read_study(path: Path, scale: str | None = None) -> Study:
    """Read a study at one of its scales, or its rows alone.

    A row is a list of overrides (a list in it is spliced in: rows share overrides by a YAML anchor), or
    ``{overrides: [...], network: ..., paper_psnr_db: ...}`` with the paper's figures beside them, ``derived_psnr_db``
    where the paper's text gives only a difference. ``rows_of`` takes the rows of another study, save those that
    ``without`` names, and its scales. ``scales.yaml`` beside the studies says what each scale adds to every row
    (``common``) and what to a row's kind of ``network``, by default ``ours``; a study with ``scales`` of its own has
    these instead.

    Raises:
        UserError: No such study or scale, a row that is neither of the two, or ``without`` names no row.
    """
    known = sorted({p.stem for p in path.parent.glob("*.yaml")} - {SCALES.removesuffix(".yaml")})
    if path.stem not in known:
        raise UserError(f"table={path.stem}: there is no such study; there are {', '.join(known)}.")
    content = _content(path)
    rows = content["rows"]
    overrides = {name: _overrides(path, name, row) for name, row in rows.items()}
    recipe = {} if scale is None else _recipe(path, content, scale)
    return Study(
        content["title"],
        content["reference"],
        tuple(content["seeds"]),
        overrides,
        recipe,
        {name: _figures(path, name, row) for name, row in rows.items() if isinstance(row, dict)},
        tuple(content.get("notes", ())),
        tuple(content.get("test", {}).get(scale, ())),
        tuple(content.get("references", ())),
        bool(content.get("points", False)),
        tuple(_scales(path, content)),
    )


def _content(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text())
    if "rows_of" not in content:
        return content
    other = _content(path.with_name(f"{content['rows_of']}.yaml"))
    rows = dict(other["rows"])
    for name in content.get("without", ()):
        if rows.pop(name, None) is None:
            raise UserError(f"{path.name}, without: {content['rows_of']} has no row {name}.")
    inherited = {"scales": other["scales"]} if "scales" in other else {}
    return inherited | content | {"rows": rows}


def _of_data(word: str) -> bool:
    return word.startswith(("data=", "data."))


def data_words(words: Sequence[str]) -> list[str]:
    """Return those overrides that speak of data."""
    return [word for word in words if _of_data(word)]


def _scales(path: Path, content: Mapping[str, Any]) -> Mapping[str, Any]:
    shared = path.with_name(SCALES)
    if "scales" in content:
        return content["scales"]
    return yaml.safe_load(shared.read_text()) if shared.is_file() else {}


def _recipe(path: Path, content: Mapping[str, Any], scale: str) -> dict[str, list[str]]:
    scales = _scales(path, content)
    if scale not in scales:
        raise UserError(f"scale={scale}: {path.stem} has the scales {', '.join(scales)}.")
    found = {}
    for name, row in content["rows"].items():
        kind = row.get("network") if isinstance(row, dict) else None
        kind = kind or content.get("network", "ours")
        own = scales[scale].get(kind)
        if own is None:
            raise UserError(f"{path.name}, row {name}: network: {kind} is unknown to scale {scale} of {SCALES}.")
        found[name] = [*scales[scale]["common"], *own]
    return found


def _overrides(path: Path, name: str, row: Any) -> list[str]:
    found = row.get("overrides") if isinstance(row, dict) else row
    if isinstance(found, list):
        found = [word for entry in found for word in (entry if isinstance(entry, list) else [entry])]
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise UserError(f"{path.name}, row {name}: write a list of overrides, or {{overrides: [...], paper_...: ...}}.")
    return found


def _figures(path: Path, name: str, row: Mapping[str, Any]) -> dict[str, float]:
    figures = {key: value for key, value in row.items() if key not in ("overrides", "network")}
    for key, value in figures.items():
        if not key.startswith(PAPER) or not isinstance(value, int | float):
            raise UserError(
                f"{path.name}, row {name}: {key} is no figure of the paper; write paper_QUANTITY_UNIT: NUMBER, or "
                "derived_QUANTITY_UNIT where its text gives only a difference."
            )
    return figures


def collect(folders: Sequence[Path], kind: str = DEFAULT_KIND) -> dict[str, Any] | None:
    """Return the results in a row's folders, one a seed, ``[seeds, images]`` each, of the seeds that did not diverge.

    They are ``psnr`` (dB) and ``ssim`` of the last stage, and ``seconds``; ``names``, the images; and by seed
    ``checkpoint``, the kind of checkpoint with its steps. ``kept``, the places of these seeds, is empty where all
    diverged. None where a seed is missing.

    Raises:
        UserError: A folder holds results of several evaluations, or seeds were evaluated on different images.
    """
    table: dict[str, list] = {key: [] for key in ("psnr", "ssim", "seconds", "kept", "checkpoint")}
    names: list[str] = []
    for place, folder in enumerate(folders):
        if (folder / "diverged.json").is_file():
            continue
        lines = read_evaluation(folder / "results.jsonl", kind)
        if not lines or not (folder / "done.json").is_file():
            return None
        found = [line["name"] for line in lines]
        if names and found != names:
            raise UserError(f"{_apart(folder, found, names)}; repeat its evaluation.")
        names = found
        table["kept"].append(place)
        table["psnr"].append([line["stage_psnr"][-1] for line in lines])
        table["ssim"].append([line["stage_ssim"][-1] for line in lines])
        table["seconds"].append([line["seconds"] for line in lines])
        steps = f", {lines[0]['generator_steps']} steps" if "generator_steps" in lines[0] else ""
        table["checkpoint"].append(context_of(lines[0])["checkpoint_kind"] + steps)
    return {name: np.array(values) for name, values in table.items()} | {"names": names}


def _apart(folder: Path, found: Sequence[str], names: Sequence[str]) -> str:
    return (
        f"{folder / 'results.jsonl'} is of {len(found)} images, of which {len(set(found) & set(names))} are among the"
        f" {len(names)} of the results beside it"
    )


def measured(
    study: Study, row: str, folder_of: Callable[[str, int], Path], kept: Kept | None = None
) -> dict[str, Any] | None:
    """Return a row's results as `collect` does, and the ``origins`` of its runs; None where a seed has none.

    A run that is finished in its folder comes before one that was kept.
    """
    parts, places, origins = [], [], []
    for place, seed in enumerate(study.seeds):
        folder = folder_of(row, seed)
        values, marker = collect([folder], study.checkpoint_kind(row)), folder / "done.json"
        if values is not None:
            origin = json.loads(marker.read_text()) if marker.is_file() else {}
        else:
            values, origin = (None, {}) if kept is None else (kept.collect(row, seed), kept.runs.get((row, seed), {}))
        if values is None:
            return None
        if len(values["kept"]):
            if parts and values["names"] != parts[0]["names"]:
                raise UserError(f"{_apart(folder, values['names'], parts[0]['names'])}; repeat its evaluation.")
            parts.append(values)
            places.append(place)
            origins.append(as_columns(origin))
    found: dict[str, Any] = {"kept": np.array(places), "origins": origins, "names": parts[0]["names"] if parts else []}
    for key in ("psnr", "ssim", "seconds", "checkpoint") if parts else ():
        found[key] = [part[key][0] for part in parts]
    return found | {key: np.array(found[key]) for key in ("psnr", "ssim") if parts}


def compare(study: Study, folder_of: Callable[[str, int], Path], kept: Kept | None = None) -> list[dict[str, Any]]:
    """Return one line per row: mean figures, spread between seeds, and the paired gains over the references.

    Keys end in their unit; those of the first reference begin with ``gain_``, of a further one with ``gain_over_ROW_``.
    The interval resamples images, after the mean over seeds of each image's difference; the spread between seeds is
    given beside it, for the interval does not hold it. A row without a result has its name, and the paper's figures,
    alone. Seeds that diverged are counted and left out of all means; a gain is over the seeds that both rows have.

    A row whose values by image were not kept is quoted as it was recorded: ``intervals_from`` is then ``recorded``.

    Args:
        study: Its rows and seeds.
        folder_of: Where a row's run with a seed keeps ``results.jsonl``, and ``done.json`` once it is done.
        kept: Results without a run here.

    Raises:
        UserError: As `collect`; or two rows, or two seeds of one, were tested on different images.
    """
    found = {name: measured(study, name, folder_of, kept) for name in study.rows}
    lines = []
    for name, values in found.items():
        line: dict[str, Any] = {"row": name}
        recorded = None if kept is None or values is not None else kept.rows.get(name)
        if recorded is not None and recorded["seeds"] + recorded.get("diverged_seeds", 0) == len(study.seeds):
            line |= {key: value for key, value in recorded.items() if not key.startswith(PAPER)}
            line["intervals_from"] = "recorded"
        diverged = 0 if values is None else len(study.seeds) - len(values["kept"])
        if diverged:
            line["diverged_seeds"] = diverged
        if values is not None and len(values["kept"]):
            line |= _figures_of(values) | _origin(values["origins"]) | {"intervals_from": "images"}
            for reference in (study.reference, *study.references):
                if name != reference:
                    line |= _gain(study, name, values, reference, found.get(reference))
        lines.append(line | study.paper.get(name, {}))
    return lines


def gain_key(study: Study, reference: str) -> str:
    """Return how the keys of a gain over a reference begin."""
    return "gain" if reference == study.reference else f"gain_over_{reference}"


def _gain(
    study: Study, name: str, values: Mapping[str, Any], reference: str, others: Mapping[str, Any] | None
) -> dict[str, Any]:
    if others is None:
        return {}
    common = np.intersect1d(values["kept"], others["kept"])
    if not len(common):
        return {}
    if values["names"] != others["names"]:
        raise UserError(f"{name} and {reference} were tested on different images: there is no paired gain.")
    ours, theirs = (x["psnr"][np.isin(x["kept"], common)] for x in (values, others))
    difference, key = ours - theirs, gain_key(study, reference)
    gain = paired_interval(difference.mean(axis=0))
    return {
        f"{key}_db": gain.mean,
        f"{key}_ci95_low_db": gain.low,
        f"{key}_ci95_high_db": gain.high,
        f"{key}_by_seed_db": difference.mean(axis=1).tolist(),
    }


def _figures_of(values: Mapping[str, Any]) -> dict[str, Any]:
    by_seed = values["psnr"].mean(axis=1)
    return {
        "psnr_db": float(by_seed.mean()),
        "psnr_seed_sd_db": float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None,
        "ssim_matlab3d": float(values["ssim"].mean()),
        "runtime_s": float(np.median([np.median(seconds) for seconds in values["seconds"]])),
        "images": values["psnr"].shape[1],
        "seeds": len(by_seed),
        "evaluated_checkpoint": "; ".join(dict.fromkeys(map(str, values["checkpoint"]))),
    }


def _origin(origins: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    # Written by whoever trained the row.
    return {key: ", ".join(dict.fromkeys(one[key] for one in origins)) for key in KEYS}
