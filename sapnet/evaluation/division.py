"""An evaluation divided among processes: what is done is taken from the file, the rest is claimed image by image."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sapnet.evaluation.contexts import context_of
from sapnet.evaluation.sharing import Claims
from sapnet.evaluation.store import ResultReader

log = logging.getLogger(__name__)
#: Seconds between two looks at what other processes have done.
POLL_SECONDS = 0.5


def share(
    work: Callable[[int], dict[str, Any]], names: Sequence[str], path: Path, context: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the result lines of all images: from the file, by our work, or by that of other processes.

    Args:
        work: Makes the line of the image with an index, and appends it to the file.
        names: Of the images.
        path: The file of result lines.
        context: What our lines have in common; others are not ours.
    """
    reader, done, wanted, waiting = ResultReader(path), {}, set(names), False
    prefix, wanted_context = json.dumps(dict(context), sort_keys=True), context_of(context)

    def look() -> None:
        ours = (line for line in reader.news() if context_of(line) == wanted_context)
        done.update((line["name"], line) for line in ours if line["name"] in wanted)
        bar.update(len(done) - bar.n)

    progress = {"total": len(names), "desc": "evaluating", "unit": "image", "disable": None}
    with Claims(path.with_name(f".{path.name}.claims")) as claims, tqdm(**progress) as bar:
        look()
        if len(done) == len(names):
            log.info("%s has the results of this checkpoint and data already: nothing is evaluated again.", path)
        while missing := [index for index, name in enumerate(names) if name not in done]:
            found = len(done)
            for index in missing:
                with claims.claim(f"{prefix} {names[index]}") as claimed:
                    look()
                    if claimed and names[index] not in done:
                        done[names[index]] = work(index)
                        bar.update(len(done) - bar.n)
            if len(done) == found:
                if not waiting:
                    log.info("waiting for other processes to evaluate %d images", len(missing))
                waiting = True
                time.sleep(POLL_SECONDS)
    return [done[name] for name in names]
