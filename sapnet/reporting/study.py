"""Studies: the rows of a table as Hydra overrides, with seeds, scales and the paper's values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from sapnet.errors import UserError

#: File with the scales shared by the studies of a folder.
SCALES = "scales.yaml"
#: Prefixes of the keys of the paper's values: printed in the paper, or derived from its text.
PAPER = ("paper_", "derived_")
#: Prefix of the override that selects the evaluated checkpoint, and its default in conf/train.yaml.
EVALUATED, DEFAULT_KIND = "evaluate_checkpoint=", "best"


@dataclass(frozen=True)
class Study:
    """Contents of a file of `experiments/`.

    Attributes:
        title: Title of the table.
        reference: Row that gains are computed against.
        seeds: Seeds of the runs; each row is trained once with each.
        rows: Overrides of `sapnet train` by row.
        recipe: Overrides of the selected scale by row, placed before those of the row; empty without a scale.
        paper: The paper's values by row: `paper_<quantity>_<unit>` if printed, `derived_<quantity>_<unit>` if derived
            from the text.
        notes: Remarks on the paper's values, printed below the table.
        test: Overrides of `sapnet evaluate` for rows that are tested on other data than they are trained on.
        references: Further rows that gains are computed against.
        points: Whether the report contains a table of the runs with the agreement of the samplers' maps.
        scales: Names of the scales the study can be run at.
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
        """Return all overrides of a run; `{data}` is a placeholder for the folder of the data sets."""
        return [*self.recipe.get(row, []), *self.rows[row], f"seed={seed}"]

    def checkpoint_kind(self, row: str) -> str:
        """Return the kind of checkpoint that is evaluated for a row: `best` or `last`."""
        return evaluated_kind([*self.recipe.get(row, []), *self.rows[row]])

    def changed(self, overrides: Sequence[str], data: Sequence[str]) -> "Study":
        """Return the study with further overrides in every recipe.

        Args:
            overrides: Appended to the recipes.
            data: Overrides of the data, which replace those of the scale.
        """
        recipe = {
            row: [*(each for each in own if not (data and _is_data(each))), *data, *overrides]
            for row, own in self.recipe.items()
        }
        return replace(self, recipe=recipe)


def evaluated_kind(overrides: Sequence[str]) -> str:
    """Return the kind of checkpoint that a training with these overrides evaluates."""
    kinds = [each.removeprefix(EVALUATED) for each in overrides if each.startswith(EVALUATED)]
    return kinds[-1] if kinds else DEFAULT_KIND


def data_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides that configure the data."""
    return [each for each in overrides if _is_data(each)]


def _is_data(override: str) -> bool:
    return override.startswith(("data=", "data."))


def read_study(path: Path, scale: str | None = None) -> Study:
    """Read a study.

    A row is a list of overrides or a mapping `{overrides: [...], recipe: ..., paper_psnr_db: ...}`. A list inside the
    overrides is flattened, so rows can share overrides by a YAML anchor. `rows_of` inherits the rows and scales of
    another study, except the rows listed in `without`. `scales.yaml` in the same folder defines the overrides that a
    scale adds to all rows (`common`) and to the rows of a kind of `recipe` (default: `ours`). A study with `scales` of
    its own uses these instead; without any it is not trained.

    Args:
        path: YAML file of the study.
        scale: Scale of the recipe; None reads the rows alone.

    Raises:
        UserError: The study or scale does not exist, a row is malformed, or `without` names an unknown row.
    """
    known = sorted({p.stem for p in path.parent.glob("*.yaml")} - {SCALES.removesuffix(".yaml")})
    if path.stem not in known:
        raise UserError(f"table={path.stem}: there is no such study; there are {', '.join(known)}.")
    content = _content(path)
    rows = content["rows"]
    return Study(
        content["title"],
        content["reference"],
        tuple(content["seeds"]),
        {name: _overrides(path, name, row) for name, row in rows.items()},
        {} if scale is None else _recipe(path, content, scale),
        {name: _paper_values(path, name, row) for name, row in rows.items() if isinstance(row, dict)},
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


def _scales(path: Path, content: Mapping[str, Any]) -> Mapping[str, Any]:
    if "scales" in content:
        return content["scales"]
    shared = path.with_name(SCALES)
    return yaml.safe_load(shared.read_text()) if shared.is_file() else {}


def _recipe(path: Path, content: Mapping[str, Any], scale: str) -> dict[str, list[str]]:
    scales = _scales(path, content)
    if not scales:
        raise UserError(f"{path.stem} is counted, not trained: sapnet count table={path.stem}.")
    if scale not in scales:
        raise UserError(f"scale={scale}: {path.stem} has the scales {', '.join(scales)}.")
    recipe = {}
    for name, row in content["rows"].items():
        kind = row.get("recipe") if isinstance(row, dict) else None
        kind = kind or content.get("recipe", "ours")
        own = scales[scale].get(kind)
        if own is None:
            raise UserError(f"{path.name}, row {name}: recipe: {kind} is unknown to scale {scale} of {SCALES}.")
        recipe[name] = [*scales[scale]["common"], *own]
    return recipe


def _overrides(path: Path, name: str, row: Any) -> list[str]:
    entries = row.get("overrides") if isinstance(row, dict) else row
    if isinstance(entries, list):
        entries = [each for entry in entries for each in (entry if isinstance(entry, list) else [entry])]
    if not isinstance(entries, list) or not all(isinstance(each, str) for each in entries):
        raise UserError(f"{path.name}, row {name}: write a list of overrides, or {{overrides: [...], paper_...: ...}}.")
    return entries


def _paper_values(path: Path, name: str, row: Mapping[str, Any]) -> dict[str, float]:
    values = {key: value for key, value in row.items() if key not in ("overrides", "recipe")}
    for key, value in values.items():
        if not key.startswith(PAPER) or not isinstance(value, int | float):
            raise UserError(
                f"{path.name}, row {name}: {key} is not a value of the paper; write paper_QUANTITY_UNIT: NUMBER, or "
                "derived_QUANTITY_UNIT where the text gives only a difference."
            )
    return values
