"""Update of the measured values in README.md and docs/: `make docs`, `python -m sapnet.reporting.docs`.

A page marks the values that come from results files. The text between two marks is rebuilt:

    <!-- from: experiments/results/study_local_rows.csv, block study -->
    ... a table ...
    <!-- end -->

    a gain of <!--= gain study_local_rows.csv NU-gate-warm -->+0.72 [+0.51, +0.98]<!--/--> dB

    <!-- python -m sapnet count table=table3 -->
    ... the output of the command ...
    <!-- end -->

Blocks are made by the functions of `sapnet.reporting.docs_tables`, inline values by those of
`sapnet.reporting.docs_values`. With `if measured` after its name, the file of a block need not exist yet.
"""

import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sapnet.configs import CONFIG_DIR
from sapnet.data.images import read_image, write_image
from sapnet.errors import UserError
from sapnet.files import write_atomically
from sapnet.reporting.docs_charts import CHARTS, draw_chart
from sapnet.reporting.docs_tables import BLOCKS
from sapnet.reporting.docs_values import VALUES

ROOT = CONFIG_DIR.parent
RESULTS = ROOT / "experiments" / "results"
_FROM = r"<!-- from: (?P<file>\S+?)(?P<later> if measured)?, block (?P<call>[^>]+?) -->\n"
_BLOCK = re.compile(rf"({_FROM}).*?(<!-- end -->)", re.S)
_VALUE = re.compile(r"(<!--= (?P<call>.+?) -->)[^<]*(<!--/-->)")
_COMMAND = re.compile(r"(<!-- python -m (?P<command>sapnet count .*?) -->\n).*?(<!-- end -->)", re.S)
_LINE_START = re.compile(r"^ *<!--=.*$", re.M)
_MARKS = re.compile(r"<!--=|<!-- (?:from:|python -m )")


def pages(root: Path = ROOT) -> list[Path]:
    """Return README.md and the pages of docs/."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def build(page: Path, root: Path = ROOT, commands: bool = False) -> str:
    """Return the text of a page with the current values of the results files.

    Args:
        page: The page.
        root: Folder that contains `experiments/results`.
        commands: Whether to run the commands of the page, which takes minutes.

    Raises:
        UserError: A mark is malformed, or names an unknown file, block, value or row.
    """
    text, count = page.read_text(), 0

    def replacement(make: Callable[[re.Match], str], gap: str) -> Callable[[re.Match], str]:
        def replace(match: re.Match) -> str:
            nonlocal count
            count += 1
            try:
                content = make(match)
            except UserError as error:
                raise UserError(f"{page.name}, {match[1].strip()}: {error}") from error
            return f"{match[1]}{gap}{content}{gap}{match[match.lastindex or 0]}"

        return replace

    if match := _LINE_START.search(text):
        # Markdown would parse the line as HTML and end the paragraph.
        raise UserError(f"{page.name}: a mark of a value starts a line, {match[0].strip()}: put a word before it.")
    text = _BLOCK.sub(replacement(lambda match: _block(match, root), "\n"), text)
    text = _VALUE.sub(replacement(lambda match: _value(match, root), ""), text)
    if commands:
        text = _COMMAND.sub(replacement(lambda match: _output(match["command"]), "\n"), text)
    else:
        count += len(_COMMAND.findall(text))
    if count != (marks := len(_MARKS.findall(text))):
        raise UserError(f"{page.name}: {count} of {marks} marks are complete; correct the others.")
    return text


def _block(match: re.Match, root: Path) -> str:
    name, *arguments = shlex.split(match["call"])
    path = root / match["file"]
    if name not in BLOCKS:
        raise UserError(f"there is no block {name}; there are {', '.join(BLOCKS)}.")
    if match["later"] and not path.is_file():
        return "Not measured yet.\n"
    if not path.is_file():
        raise UserError(f"there is no results file {path}.")
    return _call(BLOCKS[name], path, arguments).rstrip() + "\n"


def _value(match: re.Match, root: Path) -> str:
    name, file, *arguments = shlex.split(match["call"])
    if name not in VALUES:
        raise UserError(f"there is no value {name}; there are {', '.join(VALUES)}.")
    path = root / "experiments" / ("" if file.endswith(".yaml") else "results") / file
    if not path.is_file():
        raise UserError(f"there is no results file {path}.")
    return _call(VALUES[name], path, arguments)


def _call(function: Callable[..., str], path: Path, arguments: Sequence[str]) -> str:
    try:
        inspect.signature(function).bind(path, *arguments)
    except TypeError as error:
        raise UserError(f"the arguments of {function.__name__} are wrong: {error}.") from error
    return function(path, *arguments)


def _output(module: str) -> str:
    command = [sys.executable, "-m", *shlex.split(module)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if process.returncode:
        raise UserError((process.stderr.strip().splitlines() or ["it failed"])[-1])
    return process.stdout.strip() + "\n"


def main() -> None:
    """Rebuild all pages and charts, and print the changed ones."""
    try:
        texts = {page: build(page, commands=True).encode() for page in pages()}
        charts = {ROOT / "docs" / name: draw_chart(name, RESULTS) for name in CHARTS}
    except UserError as error:
        sys.exit(str(error))
    for path, content in texts.items():
        if path.read_bytes() != content:
            write_atomically(path, content)
            print(f"rebuilt {path.relative_to(ROOT)}")
    for path, chart in charts.items():
        if not path.is_file() or not np.array_equal(read_image(path), chart):
            write_image(path, chart)
            print(f"drew {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
