"""`python -m sapnet.reproduce table=4 scale=mini`: rebuild a study row by row, and render its table."""

from sapnet import interrupts

if __name__ == "__main__":
    interrupts.install()  # before the imports below, which take seconds

import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from sapnet.checks import check_writable
from sapnet.count import count_config
from sapnet.data.images import write_image
from sapnet.data.samples import usable_cores
from sapnet.entry import CONFIG_DIR, entry_point
from sapnet.errors import UserError
from sapnet.files import write_atomically
from sapnet.interrupts import Interrupted
from sapnet.provenance import write_json
from sapnet.reporting import points
from sapnet.reporting.kept import Kept, read_kept, write_kept
from sapnet.reporting.render import as_csv, as_markdown, gains_picture, gains_table
from sapnet.reporting.rows import Study, compare, data_words, read_study
from sapnet.reporting.runs import Runs, Stopped

log = logging.getLogger(__name__)
EXPERIMENTS = CONFIG_DIR.parent / "experiments"
#: Overrides of a recipe that change a network's size.
_SIZE = ("model=", "model.", "++sampling.policy.")


def costs(study: Study) -> dict[str, dict[str, float]]:
    """Count parameters and multiply-adds of every row's network for 3x256x256, at full size and at its runs' widths.

    Where the recipe names the model, there is no full size.
    """
    found = {}
    for name, overrides in study.rows.items():
        words = [word for word in overrides if not word.startswith("data")]
        widths = [word for word in study.recipe.get(name, []) if word.startswith(_SIZE)]
        found[name] = {}
        if not any(word.startswith("model=") for word in widths):
            full = count_config(hydra.compose("count", words))
            found[name] = {"parameters_m": full.total_parameters / 1e6, "gmacs": full.gmacs}
        if widths:
            run = count_config(hydra.compose("count", [*widths, *words]))
            found[name] |= {"run_parameters_m": run.total_parameters / 1e6, "run_gmacs": run.gmacs}
    return found


def train(study: Study, names: list[str], runs: Runs, jobs: int, kept: Kept | None = None) -> list[str]:
    """Train rows with all seeds, several at a time, save what was kept; return what failed.

    Raises:
        Interrupted: A signal came; it was passed on to the runs, and they have ended.
    """
    known = {} if kept is None else kept.runs
    wanted = [(name, seed) for seed in study.seeds for name in names if (name, seed) not in known]
    if len(wanted) < len(names) * len(study.seeds):
        log.info("%d runs were kept and are not trained again", len(names) * len(study.seeds) - len(wanted))
    start, failures, finished = time.monotonic(), [], []

    def run(name: str, seed: int) -> None:
        word = "done"
        log.info("%s, seed %d: in %s, where metrics.csv grows", name, seed, runs.folder(study.overrides(name, seed)))
        try:
            runs.do(study.overrides(name, seed), study.test)
        except Stopped as stop:
            log.info("%s, seed %d: %s", name, seed, stop or "not begun")
            return
        except UserError as error:
            word = str(error)
            failures.append(f"{name}, seed {seed}: {word}")
        finished.append((name, seed))
        minutes = (time.monotonic() - start) / 60
        left = minutes / len(finished) * (len(wanted) - len(finished))
        log.info("%d of %d: %s, seed %d: %s; about %.0f min left", len(finished), len(wanted), name, seed, word, left)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(run, *zip(*wanted, strict=True)))
        except Interrupted as stop:
            # The runs save a checkpoint and end; the pool waits for that.
            runs.children.stop(stop.signum)
            pool.shutdown(cancel_futures=True)
            remark = f"{len(finished)} of {len(wanted)} runs have ended, and the same command goes on with the others"
            raise Interrupted(stop.signum, remark) from None
    return failures


def _results(config: DictConfig, name: str) -> tuple[Path, str] | None:
    # Where results are kept, and under which name.
    if config.results is None:
        return None
    if config.seeds is not None or config.overrides or data_words(HydraConfig.get().overrides.task):
        raise UserError(
            f"results={config.results}: it keeps whole studies as their files describe them; leave out seeds, overrides"
            " and settings of data, or leave out results."
        )
    return Path(config.results), name if config.scale == "mini" else f"{name}_{config.scale}"


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"{seeds[0]} alone: an interval holds the chance of the images, not that of the training"
    return ", ".join(map(str, seeds))


def render(
    study: Study, runs: Runs, folder: Path, origin: dict[str, str], results: tuple[Path, str] | None = None
) -> str:
    """Write the tables and the picture of what is there, and return the Markdown.

    They are ``table.md``, ``table.csv``, ``table.json``, ``gains.png``, ``runs.csv`` and ``images.csv``.

    Args:
        study: What is rendered.
        runs: Its runs.
        folder: Where the tables go.
        origin: Said below the table.
        results: A folder and a name in it: results that were kept there stand in for runs that are not here, and all
            of them are kept there again (`sapnet.reporting.kept`).
    """
    kept = None if results is None else read_kept(*results)

    def folder_of(row: str, seed: int) -> Path:
        return runs.folder(study.overrides(row, seed), study.test)

    counted = costs(study)
    # What was recorded earlier keeps the costs it had.
    lines = [{**line, **counted[line["row"]], **line} for line in compare(study, folder_of, kept)]
    table = as_markdown(study, lines, origin)
    for reference in study.references:
        table += "\n" + gains_table(study, lines, reference)
    gmacs = {row: cost["run_gmacs" if "run_gmacs" in cost else "gmacs"] for row, cost in counted.items()}
    found = points.run_lines(study, folder_of, gmacs, kept)
    if study.points:
        table += "\n" + points.as_markdown(found)
    files = {
        ".csv": as_csv(points.ordered(found)),
        "_images.csv": as_csv(points.all_images(study, folder_of, kept)),
        "_rows.csv": as_csv(lines),
        ".md": table,
    }
    for name, ending in {"runs.csv": ".csv", "images.csv": "_images.csv", "table.csv": "_rows.csv"}.items():
        write_atomically(folder / name, files[ending].encode())
    write_atomically(folder / "table.md", table.encode())
    write_json(folder / "table.json", {"lines": lines, "origin": origin})
    if results is not None:
        write_kept(*results, files)
    picture = gains_picture(study, lines)
    if picture is not None:
        write_image(folder / "gains.png", picture)
    return table


@entry_point("reproduce")
def main(config: DictConfig) -> None:
    """Train what is missing, then render what is there."""
    name = f"table{config.table}" if str(config.table).isdigit() else str(config.table)
    study = read_study(EXPERIMENTS / f"{name}.yaml", config.scale)
    if config.seeds is not None:
        study = replace(study, seeds=tuple(config.seeds))
    study = study.changed(config.overrides, data_words(HydraConfig.get().overrides.task))
    if config.row is not None and config.row not in study.rows:
        raise UserError(f"row={config.row}: {name} has the rows {', '.join(study.rows)}.")
    root = Path(config.root)
    for folder in (root / "runs", root / name / config.scale):
        check_writable(folder)
    runs = Runs(root / "runs", config.data_root, max(1, usable_cores() // config.jobs))
    names = [config.row] if config.row is not None else list(study.rows)
    results = _results(config, name)
    failures = []
    if not config.render_only:
        failures = train(study, names, runs, config.jobs, None if results is None else read_kept(*results))
    origin = {
        "Measured with": f"`python -m sapnet.reproduce table={config.table} scale={config.scale}`",
        "Seeds": _seeds(study.seeds),
        "Costs": "counted for 3x256x256 at full size, and at the widths of the runs",
        "Commands, config hashes, commits, versions": "table.csv" if results is None else f"{results[1]}_rows.csv",
    }
    if config.scale == "smoke":
        origin = {"SMOKE": "a trial of the machinery; its figures mean nothing."} | origin
    print(render(study, runs, root / name / config.scale, origin, results))
    if failures:
        raise UserError(f"{len(failures)} runs failed; the first: {failures[0]}")


if __name__ == "__main__":
    main()
