"""Validation of a whole data set before training: decode every file and count the pairs of every sequence."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sapnet.data.folder import FolderData
from sapnet.data.image_files import SUFFIXES
from sapnet.data.images import read_image
from sapnet.data.pairs import Pair
from sapnet.data.published import PairCounts, PublishedData, count_differences, count_pairs, total_pairs
from sapnet.data.samples import usable_cores
from sapnet.errors import UserError


@dataclass
class SplitReport:
    """Result of the validation of one split.

    Attributes:
        split: Name of the split.
        pairs: Number of pairs of each sequence.
        expected: Number of pairs of the complete set, if known.
        files: Number of decoded files.
        blurred: Folder of the first blurred image, which identifies the kind of blur.
        sizes: Number of pairs of each (height, width).
        problems: One message per problem.
    """

    split: str
    pairs: dict[str, int] = field(default_factory=dict)
    expected: PairCounts | None = None
    files: int = 0
    blurred: str = ""
    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def check(data: FolderData) -> list[SplitReport]:
    """Decode each file of the available splits and compare the numbers of pairs with the published ones.

    Problems are collected, not raised: wrong numbers of pairs, files without a partner, pairs of different sizes or
    equal content, and files that are damaged, truncated or of an unsupported kind. If a problem prevents the pairs from
    being found, the images in the folder of the split are still decoded.

    Raises:
        UserError: None of the splits exists.
    """
    splits = ("train", "val", "test")
    if isinstance(data, PublishedData):
        splits, data.partial = tuple(data.pair_counts), True  # missing pairs are counted
    reports = [report for split in splits if (report := _check_split(data, split)) is not None]
    if not reports:
        # This raises the error that names the missing folder.
        (data.locate if isinstance(data, PublishedData) else data.find)("test")
    return reports


def as_text(name: str | None, reports: Sequence[SplitReport]) -> str:
    """Return the reports as text: a table of each split, then all problems."""
    lines = [line for report in reports for line in (*_table(name, report), "")]
    problems = [f"{report.split}: {problem}" for report in reports for problem in report.problems]
    lines += [f"problems: {len(problems)}", *(f"  - {problem}" for problem in problems)]
    return "\n".join(lines)


def _check_split(data: FolderData, split: str) -> SplitReport | None:
    report = SplitReport(split)
    try:
        if isinstance(data, PublishedData):
            pairs = data.locate(split)
            report.expected = data.expected(split)
            if count_differences(pairs, report.expected):
                share = f"{len(pairs)} of {total_pairs(report.expected)}"
                report.problems.append(f"{share} published pairs are available: complete the download")
        else:
            pairs = data.find(split)
    except UserError as error:
        files = list(_images(data, split))
        if not files:
            return None
        report.problems.append(str(error))
        report.files = len(files)
        results = _process(files, _read_error, f"{data.name}, {split}")
        report.problems += [problem for _, problem in results if problem is not None]
        return report
    report.pairs, report.blurred = count_pairs(pairs), str(pairs[0].blurred.parent)
    equal = []
    for pair, result in _process(pairs, _compare, f"{data.name}, {split}"):
        report.files += 2
        if isinstance(result, str):
            report.problems.append(result)
        else:
            size, same = result
            report.sizes[size] = report.sizes.get(size, 0) + 1
            equal += [pair.name] if same else []
    if equal:
        report.problems.append(f"{len(equal)} pairs have equal blurred and sharp images, first {equal[0]}")
    return report


def _images(data: FolderData, split: str) -> Iterator[Path]:
    if isinstance(data, PublishedData):
        folders = data.image_folders(split)
    else:
        named = [folder for folder in data.folders[split].values() if folder]
        folders = map(Path, named or ([Path(data.root) / split] if data.root else []))
    for folder in folders:
        yield from (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES)


def _process(items, function, title: str) -> Iterator[tuple]:
    # Pillow releases the global interpreter lock while it decodes.
    with ThreadPoolExecutor(usable_cores()) as pool:
        results = tqdm(pool.map(function, items), desc=title, total=len(items), unit="item", disable=None)
        yield from zip(items, results, strict=True)


def _read_error(path: Path) -> str | None:
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
        return f"{pair.blurred} is {w}x{h} and {pair.sharp} is {target_w}x{target_h}: both must have the same size."
    return sharp.shape[:2], np.array_equal(blurred, sharp)


def _table(name: str | None, report: SplitReport) -> list[str]:
    pairs, expected = sum(report.pairs.values()), report.expected
    if not report.pairs:
        return [f"{name}, {report.split}: no pairs; {report.files} images decoded"]
    total = "" if expected is None else f" of {total_pairs(expected)}"
    lines = [f"{name}, {report.split}: {pairs}{total} pairs, {report.files} files decoded, blurred as {report.blurred}"]
    sizes = ", ".join(f"{w}x{h} ({n} pairs)" for (h, w), n in sorted(report.sizes.items(), reverse=True)[:4])
    lines += [f"  sizes: {sizes}{' and others' if len(report.sizes) > 4 else ''}"]
    if isinstance(expected, int) or expected is None:
        return [*lines, f"  sequences: {len(report.pairs)}"]
    lines += [f"  {'sequence':<24}{'pairs':>8}{'published':>12}"]
    for sequence in sorted({*report.pairs, *expected}):
        available, complete = report.pairs.get(sequence, 0), expected.get(sequence, 0)
        mark = "" if available == complete else "   <-"
        lines.append(f"  {sequence:<24}{available:>8}{complete:>12}{mark}")
    return lines
