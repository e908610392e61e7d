"""The report of a study: its tables, the chart of its gains, and the origin of the values."""

from collections.abc import Sequence
from pathlib import Path

from sapnet.data.images import write_image
from sapnet.files import write_atomically
from sapnet.provenance import write_json
from sapnet.reporting import run_tables
from sapnet.reporting.charts import gains_chart
from sapnet.reporting.comparison import compare
from sapnet.reporting.costs import study_costs
from sapnet.reporting.learning_curves import curve_lines
from sapnet.reporting.runs import RunStore
from sapnet.reporting.saved_results import read_saved_results, read_table, write_saved_results
from sapnet.reporting.study import Study
from sapnet.reporting.study_tables import as_csv, as_markdown, gains_table


def write_report(
    study: Study, runs: RunStore, folder: Path, origin: dict[str, str], results: tuple[Path, str] | None = None
) -> str:
    """Write the report of the finished runs of a study and return it as Markdown.

    The files are `table.md`, `table.csv`, `table.json`, `gains.png`, `runs.csv`, `images.csv` and `curves.csv`.

    Args:
        study: The study.
        runs: Its runs.
        folder: Output folder.
        origin: Text by keyword, printed below the table.
        results: Folder and name of saved results (`sapnet.reporting.saved_results`). They replace runs that are not
            available, and are updated with all results.
    """
    saved = None if results is None else read_saved_results(*results)

    def folder_of(row: str, seed: int) -> Path:
        return runs.folder(study.overrides(row, seed), study.test)

    costs = study_costs(study)
    # Recorded lines keep the costs that they were recorded with.
    lines = [{**line, **costs[line["row"]], **line} for line in compare(study, folder_of, saved)]
    table = as_markdown(study, lines, origin)
    for reference in study.references:
        table += "\n" + gains_table(study, lines, reference)
    gmacs = {row: cost["run_gmacs" if "run_gmacs" in cost else "gmacs"] for row, cost in costs.items()}
    run_lines = run_tables.run_lines(study, folder_of, gmacs, saved)
    if study.points:
        table += "\n" + run_tables.as_markdown(run_lines)
    saved_curves = [] if results is None else read_table(results[0] / f"{results[1]}_curves.csv", missing_ok=True)
    files = {
        "_curves.csv": as_csv(curve_lines(study, folder_of, saved_curves)),
        ".csv": as_csv(run_tables.ordered(run_lines)),
        "_images.csv": as_csv(run_tables.all_images(study, folder_of, saved)),
        "_rows.csv": as_csv(lines),
        ".md": table,
    }
    names = {"runs.csv": ".csv", "images.csv": "_images.csv", "table.csv": "_rows.csv", "curves.csv": "_curves.csv"}
    for name, ending in names.items():
        write_atomically(folder / name, files[ending].encode())
    write_atomically(folder / "table.md", table.encode())
    write_json(folder / "table.json", {"lines": lines, "origin": origin})
    if results is not None:
        write_saved_results(*results, files)
    chart = gains_chart(study, lines)
    if chart is not None:
        write_image(folder / "gains.png", chart)
    return table


def study_origin(study: Study, table: str, scale: str, results: tuple[Path, str] | None = None) -> dict[str, str]:
    """Return the text below the table of a study: the command, the seeds and the files with the details.

    Args:
        study: The study.
        table: The option `table` of the command.
        scale: The option `scale` of the command.
        results: Folder and name of saved results, as in `write_report`.
    """
    origin = {
        "Measured with": f"`python -m sapnet reproduce table={table} scale={scale}`",
        "Seeds": _seeds(study.seeds),
        "Costs": "counted for 3x256x256 at full size, and at the widths of the runs",
        "Commands, config hashes, commits, versions": "table.csv" if results is None else f"{results[1]}_rows.csv",
    }
    if scale == "smoke":
        origin = {"SMOKE": "a smoke test; the values are meaningless."} | origin
    return origin


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"{seeds[0]} only: the interval covers the choice of images, not the randomness of training"
    return ", ".join(map(str, seeds))
