"""One self-contained HTML file about runs and studies."""

from collections.abc import Sequence
from pathlib import Path
from string import Template

from sapnet import __version__
from sapnet.errors import UserError
from sapnet.files import write_atomically
from sapnet.reporting.html_report.elements import anchor, text
from sapnet.reporting.html_report.run_results import RunResults, is_run, read_run_results
from sapnet.reporting.html_report.run_section import run_section
from sapnet.reporting.html_report.study_section import comparison_section, is_study, study_section

#: Largest size of a report in bytes.
LARGEST = 15 * 10**6
_PARTS = Path(__file__).parent


def write_report(folders: Sequence[Path], output: Path | None = None, images: int = 6) -> Path:
    """Write the report of runs and studies and return its path.

    Args:
        folders: Run folders of trainings and evaluations, and folders of rendered studies.
        output: The file; by default `report.html` in the folder, or in the current one for several folders.
        images: Number of test images of each run with pictures; 0 for none.

    Raises:
        UserError: A folder has no results, a file cannot be read or written, or the report would be too large.
    """
    folders = list(dict.fromkeys(folders))
    output = output or ((folders[0] if len(folders) == 1 else Path()) / "report.html")
    if output.suffix.lower() not in (".html", ".htm") or output.is_dir():
        raise UserError(f"{output}: give -o the name of a file that ends in .html.")
    page = report_page(folders, images).encode()
    if len(page) > LARGEST:
        raise UserError(
            f"the report would have {len(page) / 1e6:.1f} MB, and at most 15 are written: give fewer folders."
        )
    try:
        write_atomically(output, page)
    except OSError as error:
        raise UserError(f"{output}: the report cannot be written ({error.strerror or error}).") from error
    return output


def report_page(folders: Sequence[Path], images: int, largest: int = LARGEST) -> str:
    """Return the report as HTML.

    Args:
        folders: As in `write_report`.
        images: As in `write_report`.
        largest: Size in bytes that pictures must not exceed together with the rest of the page.

    Raises:
        UserError: A folder has no results, or a file cannot be read.
    """
    found = [_read(folder) for folder in folders]
    runs = [each for each in found if isinstance(each, RunResults)]
    comparison = comparison_section(runs)
    # What the page takes without pictures.
    texts = [run_section(each, 0, 0) if isinstance(each, RunResults) else each for each in found]
    room = largest - len(_page(folders, [comparison, *texts]).encode()) - 4096 * len(found)
    if images and runs:
        share = max(0, room // len(runs))
        texts = [run_section(each, images, share) if isinstance(each, RunResults) else each for each in found]
    return _page(folders, [comparison, *texts])


def _read(folder: Path) -> RunResults | str:
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder.")
    if is_study(folder):
        return study_section(folder)
    if is_run(folder):
        return read_run_results(folder)
    raise UserError(
        f"{folder}: there are no results in it; give the folder of a training, an evaluation (summary.json,"
        " results.jsonl) or a rendered study (table.json)."
    )


def _page(folders: Sequence[Path], parts: Sequence[str]) -> str:
    headings = [*(["Comparison"] if parts[0] else []), *map(str, folders)]
    links = "".join(f'<li><a href="#{anchor(heading)}">{text(heading)}</a></li>' for heading in headings)
    title = f"sapnet report: {folders[0]}" if len(folders) == 1 else f"sapnet report of {len(folders)} folders"
    template = Template((_PARTS / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=text(title),
        style=(_PARTS / "page.css").read_text(encoding="utf-8"),
        script=(_PARTS / "page.js").read_text(encoding="utf-8"),
        links=f"<ul>{links}</ul>",
        body="\n".join(filter(None, parts)),
        version=text(__version__),
    )
