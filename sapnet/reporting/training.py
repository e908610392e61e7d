"""Train the rows of a study, several at a time."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

from sapnet.errors import UserError
from sapnet.interrupts import Interrupted
from sapnet.reporting.kept import Kept
from sapnet.reporting.rows import Study
from sapnet.reporting.runs import Runs, Stopped

log = logging.getLogger(__name__)


def train_rows(study: Study, names: list[str], runs: Runs, jobs: int, kept: Kept | None = None) -> list[str]:
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
