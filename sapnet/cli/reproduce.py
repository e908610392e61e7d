"""`sapnet reproduce`: rebuild a study row by row, and render its table."""

from dataclasses import replace
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sapnet.checks import check_writable
from sapnet.cli.hydra_command import hydra_command
from sapnet.configs import EXPERIMENTS
from sapnet.data.samples import usable_cores
from sapnet.errors import UserError
from sapnet.reporting.runs import RunStore
from sapnet.reporting.saved_results import read_saved_results
from sapnet.reporting.study import data_overrides, read_study
from sapnet.reporting.study_report import study_origin, write_report
from sapnet.reporting.study_training import train_rows


@hydra_command("reproduce")
def main(config: DictConfig) -> None:
    """Train missing rows, then render the available results."""
    name = f"table{config.table}" if str(config.table).isdigit() else str(config.table)
    study = read_study(EXPERIMENTS / f"{name}.yaml", config.scale)
    if config.seeds is not None:
        study = replace(study, seeds=tuple(config.seeds))
    study = study.changed(config.overrides, data_overrides(HydraConfig.get().overrides.task))
    if config.row is not None and config.row not in study.rows:
        raise UserError(f"row={config.row}: {name} has the rows {', '.join(study.rows)}.")
    root = Path(config.root)
    for folder in (root / "runs", root / name / config.scale):
        check_writable(folder)
    runs = RunStore(root / "runs", config.data_root, max(1, usable_cores() // config.jobs))
    names = [config.row] if config.row is not None else list(study.rows)
    results = _results_place(config, name)
    failures = []
    if not config.render_only:
        failures = train_rows(
            study, names, runs, config.jobs, None if results is None else read_saved_results(*results)
        )
    origin = study_origin(study, config.table, config.scale, results)
    print(write_report(study, runs, root / name / config.scale, origin, results))
    if failures:
        raise UserError(f"{len(failures)} runs failed; the first: {failures[0]}")


def _results_place(config: DictConfig, name: str) -> tuple[Path, str] | None:
    # Where results are kept, and under which name.
    if config.results is None:
        return None
    if config.seeds is not None or config.overrides or data_overrides(HydraConfig.get().overrides.task):
        raise UserError(
            f"results={config.results}: it keeps whole studies as their files describe them; leave out seeds, overrides"
            " and settings of data, or leave out results."
        )
    return Path(config.results), name if config.scale == "mini" else f"{name}_{config.scale}"
