"""A data set looked at whole before anybody trains on it: every file decoded, every sequence counted."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sapnet.data.benchmark import BenchmarkData, Published, count, differences, total
from sapnet.data.folder import FolderData
from sapnet.data.images import SUFFIXES, read_image
from sapnet.data.pairs import Pair
from sapnet.data.samples import usable_cores
from sapnet.errors import UserError


@dataclass
class SplitReport:
    """What was found in one split."""

    split: str
    pairs: dict[str, int] = field(default_factory=dict)
    """Count of pairs of each sequence."""
    published: Published | None = None
    """What the whole set has, where that is known."""
    files: int = 0
    """Count of files that were decoded."""
    blurred: str = ""
    """Folder of the first blurred image: which of several kinds is read."""
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    """Count of pairs of each (height, width)."""
    problems: list[str] = field(default_factory=list)
    """A sentence each."""


def check(data: FolderData) -> list[SplitReport]:
    """Decode each file of the splits that are there, and hold their counts against the published ones.

    Problems are collected, not raised: counts, files without a partner, pairs of unequal sizes or equal content, files
    that are damaged, cut short, or of a kind that cannot be read. Where the pairs cannot be told because of one of
    these, the images below the split's folder are still decoded.

    Raises:
        UserError: none of the splits is there.
    """
    splits = ("train", "val", "test")
    if isinstance(data, BenchmarkData):
        splits, data.partial = tuple(data.published), True  # what is missing is counted
    reports = [report for split in splits if (report := _check_split(data, split)) is not None]
    if not reports:
        # Its error names the place that was looked at.
        (data.locate if isinstance(data, BenchmarkData) else data.find)("test")
    return reports


def as_text(name: str | None, reports: Sequence[SplitReport]) -> str:
    """The reports for a terminal: a table of each split, then all problems."""
    lines = [line for report in reports for line in (*_table(name, report), "")]
    problems = [f"{report.split}: {problem}" for report in reports for problem in report.problems]
    lines += [f"problems: {len(problems)}", *(f"  - {problem}" for problem in problems)]
    return "\n".join(lines)


def _check_split(data: FolderData, split: str) -> SplitReport | None:
    report = SplitReport(split)
    try:
        if isinstance(data, BenchmarkData):
            pairs = data.locate(split)
            report.published = data.expected(split)
            if differences(pairs, report.published):
                share = f"{len(pairs)} of {total(report.published)}"
                report.problems.append(f"{share} published pairs are there: complete the download")
        else:
            pairs = data.find(split)
    except UserError as error:
        files = list(_images(data, split))
        if not files:
            return None
        report.problems.append(str(error))
        report.files = len(files)
        found = _decoded(files, _read, f"{data.name}, {split}")
        report.problems += [problem for _, problem in found if problem is not None]
        return report
    report.pairs, report.blurred = count(pairs), str(pairs[0].blurred.parent)
    equal = []
    for pair, found in _decoded(pairs, _compare, f"{data.name}, {split}"):
        report.files += 2
        if isinstance(found, str):
            report.problems.append(found)
        else:
            size, same = found
            report.sizes[size] = report.sizes.get(size, 0) + 1
            equal += [pair.name] if same else []
    if equal:
        report.problems.append(f"{len(equal)} pairs show one image twice, nothing blurred, first {equal[0]}")
    return report


def _images(data: FolderData, split: str) -> Iterator[Path]:
    if isinstance(data, BenchmarkData):
        folders = data.image_folders(split)
    else:
        named = [folder for folder in data.folders[split].values() if folder]
        folders = map(Path, named or ([Path(data.root) / split] if data.root else []))
    for folder in folders:
        yield from (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES)


def _decoded(items, look, title: str) -> Iterator[tuple]:
    # Pillow decodes without holding Python's lock, so threads are enough.
    with ThreadPoolExecutor(usable_cores()) as pool:
        found = tqdm(pool.map(look, items), desc=title, total=len(items), unit="item", disable=None)
        yield from zip(items, found, strict=True)


def _read(path: Path) -> str | None:
    try:
        read_image(path)
    except UserError as error:
        return str(error)
    return None


def _compare(pair: Pair) -> str | tuple[tuple[int, int], bool]:
    images, problems = [], []
    for path in (pair.blurred, pair.sharp):
        try:
            images.append(read_image(path))
        except UserError as error:
            problems.append(str(error))
    if problems:
        return "; ".join(problems)
    blurred, sharp = images
    if blurred.shape != sharp.shape:
        (h, w, _), (target_h, target_w, _) = blurred.shape, sharp.shape
        return f"{pair.blurred} is {w}x{h} and {pair.sharp} {target_w}x{target_h}: a pair has one size."
    return sharp.shape[:2], np.array_equal(blurred, sharp)


def _table(name: str | None, report: SplitReport) -> list[str]:
    pairs, published = sum(report.pairs.values()), report.published
    if not report.pairs:
        return [f"{name}, {report.split}: no pairs can be made; {report.files} images decoded"]
    whole = "" if published is None else f" of {total(published)}"
    lines = [f"{name}, {report.split}: {pairs}{whole} pairs, {report.files} files decoded, blurred as {report.blurred}"]
    sizes = ", ".join(f"{w}x{h} ({n} pairs)" for (h, w), n in sorted(report.sizes.items(), reverse=True)[:4])
    lines += [f"  sizes: {sizes}{' and others' if len(report.sizes) > 4 else ''}"]
    if isinstance(published, int) or published is None:
        return [*lines, f"  sequences: {len(report.pairs)}"]
    lines += [f"  {'sequence':<24}{'pairs':>8}{'published':>12}"]
    for sequence in sorted({*report.pairs, *published}):
        here, there = report.pairs.get(sequence, 0), published.get(sequence, 0)
        lines.append(f"  {sequence:<24}{here:>8}{there:>12}{'' if here == there else '   <-'}")
    return lines
