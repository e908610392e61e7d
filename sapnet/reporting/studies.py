"""Render a study: its tables, the picture of its gains, and where its figures come from."""

from collections.abc import Sequence
from pathlib import Path

from sapnet.data.images import write_image
from sapnet.files import write_atomically
from sapnet.provenance import write_json
from sapnet.reporting import points
from sapnet.reporting.charts import gains_chart
from sapnet.reporting.costs import study_costs
from sapnet.reporting.kept import read_kept, write_kept
from sapnet.reporting.render import as_csv, as_markdown, gains_table
from sapnet.reporting.rows import Study, compare
from sapnet.reporting.runs import Runs


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

    counted = study_costs(study)
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
    picture = gains_chart(study, lines)
    if picture is not None:
        write_image(folder / "gains.png", picture)
    return table


def study_origin(study: Study, table: str, scale: str, results: tuple[Path, str] | None = None) -> dict[str, str]:
    """Return what is said below a study's table: the command, the seeds, and where the rest is found.

    Args:
        study: What is rendered.
        table: The command's `table`.
        scale: The command's `scale`.
        results: As of `render`.
    """
    origin = {
        "Measured with": f"`python -m sapnet reproduce table={table} scale={scale}`",
        "Seeds": _seeds(study.seeds),
        "Costs": "counted for 3x256x256 at full size, and at the widths of the runs",
        "Commands, config hashes, commits, versions": "table.csv" if results is None else f"{results[1]}_rows.csv",
    }
    if scale == "smoke":
        origin = {"SMOKE": "a trial of the machinery; its figures mean nothing."} | origin
    return origin


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"{seeds[0]} alone: an interval holds the chance of the images, not that of the training"
    return ", ".join(map(str, seeds))
