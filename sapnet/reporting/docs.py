"""`make docs`, `python -m sapnet.reporting.docs`: put the figures of results files into README.md and docs/.

A page marks where its figures come from; what stands between two marks is rebuilt, the rest is left alone:

    <!-- from: experiments/results/study_local_rows.csv, block study -->
    ... a table ...
    <!-- end -->

    a gain of <!--= gain study_local_rows.csv NU-gate-warm -->+0.72 [+0.51, +0.98]<!--/--> dB

    <!-- python -m sapnet count table=table3 -->
    ... what the command prints ...
    <!-- end -->

Blocks and inline figures are the functions of `sapnet.reporting.blocks` and `sapnet.reporting.figures`. With
`if measured` after the file's name a block may name results that are not there yet.
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
from sapnet.reporting.blocks import BLOCKS, PICTURES, picture
from sapnet.reporting.figures import FIGURES

ROOT = CONFIG_DIR.parent
RESULTS = ROOT / "experiments" / "results"
_FROM = r"<!-- from: (?P<file>\S+?)(?P<later> if measured)?, block (?P<words>[^>]+?) -->\n"
_BLOCK = re.compile(rf"({_FROM}).*?(<!-- end -->)", re.S)
_FIGURE = re.compile(r"(<!--= (?P<words>.+?) -->)[^<]*(<!--/-->)")
_COMMAND = re.compile(r"(<!-- python -m (?P<words>sapnet count .*?) -->\n).*?(<!-- end -->)", re.S)
_AT_BEGINNING = re.compile(r"^ *<!--=.*$", re.M)
_MARKS = re.compile(r"<!--=|<!-- (?:from:|python -m )")


def pages(root: Path = ROOT) -> list[Path]:
    """Return README.md and the pages of docs/."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def build(page: Path, root: Path = ROOT, commands: bool = False) -> str:
    """Return a page with the figures that the results files hold now.

    Args:
        page: What is built.
        root: Where the page's results files are.
        commands: Whether the commands of a page are run too, which takes minutes.

    Raises:
        UserError: A mark is damaged, or names no file, block, figure or row.
    """
    text, found = page.read_text(), 0

    def put(make: Callable[[re.Match], str], gap: str) -> Callable[[re.Match], str]:
        def replaced(match: re.Match) -> str:
            nonlocal found
            found += 1
            try:
                made = make(match)
            except UserError as error:
                raise UserError(f"{page.name}, {match[1].strip()}: {error}") from error
            return f"{match[1]}{gap}{made}{gap}{match[match.lastindex or 0]}"

        return replaced

    if begun := _AT_BEGINNING.search(text):
        # Markdown would take the line for HTML, and end the paragraph.
        raise UserError(f"{page.name}: a figure's mark begins a line, {begun[0].strip()}: put a word before it.")
    text = _BLOCK.sub(put(lambda match: _block(match, root), "\n"), text)
    text = _FIGURE.sub(put(lambda match: _figure(match, root), ""), text)
    if commands:
        text = _COMMAND.sub(put(lambda match: _printed(match["words"]), "\n"), text)
    else:
        found += len(_COMMAND.findall(text))
    if found != len(_MARKS.findall(text)):
        raise UserError(f"{page.name}: {len(_MARKS.findall(text))} marks begin and {found} are whole; mend the others.")
    return text


def _block(match: re.Match, root: Path) -> str:
    name, *words = shlex.split(match["words"])
    path = root / match["file"]
    if name not in BLOCKS:
        raise UserError(f"there is no block {name}; there are {', '.join(BLOCKS)}.")
    if match["later"] and not path.is_file():
        return "Not measured yet.\n"
    if not path.is_file():
        raise UserError(f"there is no results file {path}.")
    return _called(BLOCKS[name], path, words).rstrip() + "\n"


def _figure(match: re.Match, root: Path) -> str:
    name, file, *words = shlex.split(match["words"])
    if name not in FIGURES:
        raise UserError(f"there is no figure {name}; there are {', '.join(FIGURES)}.")
    path = root / "experiments" / ("" if file.endswith(".yaml") else "results") / file
    if not path.is_file():
        raise UserError(f"there is no results file {path}.")
    return _called(FIGURES[name], path, words)


def _called(make: Callable[..., str], path: Path, words: Sequence[str]) -> str:
    try:
        inspect.signature(make).bind(path, *words)
    except TypeError as error:
        raise UserError(f"{make.__name__} takes other words: {error}.") from error
    return make(path, *words)


def _printed(words: str) -> str:
    command = [sys.executable, "-m", *shlex.split(words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or ["it failed"])[-1])
    return done.stdout.strip() + "\n"


def main() -> None:
    """Rebuild all pages and pictures, and name those that changed."""
    try:
        built = {page: build(page, commands=True).encode() for page in pages()}
        drawings = {ROOT / "docs" / name: picture(name, RESULTS) for name in PICTURES}
    except UserError as error:
        sys.exit(str(error))
    for path, content in built.items():
        if path.read_bytes() != content:
            write_atomically(path, content)
            print(f"rebuilt {path.relative_to(ROOT)}")
    for path, drawn in drawings.items():
        if not path.is_file() or not np.array_equal(read_image(path), drawn):
            write_image(path, drawn)
            print(f"drawn again: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
