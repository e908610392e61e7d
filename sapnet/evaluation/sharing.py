"""Distribute images across processes with file locks."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sapnet.evaluation.claims import Claims
from sapnet.evaluation.progress import ImageProgress
from sapnet.evaluation.result_contexts import context_of
from sapnet.evaluation.results_file import ResultReader

log = logging.getLogger(__name__)
#: Seconds between two reads of the results file while other processes evaluate.
POLL_SECONDS = 0.5


def claims_path(path: Path) -> Path:
    """Return the file of claims of a results file."""
    return path.with_name(f".{path.name}.claims")


def share_images(
    evaluate: Callable[[int], dict[str, Any]], names: Sequence[str], path: Path, context: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the result lines of all images: read from the file, or evaluated by this or by another process.

    Args:
        evaluate: Evaluates the image with an index, appends its line to the file and returns the line.
        names: Names of the images.
        path: The results file.
        context: Context of the lines; lines of other contexts are ignored.
    """
    reader, done, wanted, waiting = ResultReader(path), {}, set(names), False
    prefix, wanted_context = json.dumps(dict(context), sort_keys=True), context_of(context)

    def read_lines() -> None:
        lines = (line for line in reader.read_new() if context_of(line) == wanted_context)
        done.update((line["name"], line) for line in lines if line["name"] in wanted)

    read_lines()
    with Claims(claims_path(path)) as claims, ImageProgress(len(names), len(done)) as progress:
        if len(done) == len(names):
            log.info("%s already contains the results of this checkpoint and data; nothing is evaluated again.", path)
        while missing := [index for index, name in enumerate(names) if name not in done]:
            done_before = len(done)
            for index in missing:
                with claims.claim(f"{prefix} {names[index]}") as claimed:
                    read_lines()
                    if claimed and names[index] not in done:
                        done[names[index]] = evaluate(index)
                progress.update(len(done))
            if len(done) == done_before:
                if not waiting:
                    log.info("waiting for other processes to evaluate %d images", len(missing))
                waiting = True
                time.sleep(POLL_SECONDS)
    return [done[name] for name in names]
