"""Training of the rows of a study, several runs in parallel."""

import logging
import time
from concurrent.futures import ThreadPoolExecutor

from sapnet.errors import UserError
from sapnet.interrupts import Interrupted
from sapnet.reporting.runs import RunStopped, RunStore
from sapnet.reporting.saved_results import SavedResults
from sapnet.reporting.study import Study

log = logging.getLogger(__name__)


def train_rows(
    study: Study, names: list[str], runs: RunStore, jobs: int, saved: SavedResults | None = None
) -> list[str]:
    """Train rows of a study with all seeds, and return a message for each run that failed.

    Args:
        study: The study.
        names: Rows to train.
        runs: Store of the runs.
        jobs: Number of parallel runs.
        saved: Results of runs that are not trained again.

    Raises:
        Interrupted: The process received a signal. It is forwarded to the runs, which have ended.
    """
    done = {} if saved is None else saved.runs
    pending = [(name, seed) for seed in study.seeds for name in names if (name, seed) not in done]
    if len(pending) < len(names) * len(study.seeds):
        log.info("%d runs have saved results and are not trained again", len(names) * len(study.seeds) - len(pending))
    start, failures, finished = time.monotonic(), [], []

    def train(name: str, seed: int) -> None:
        outcome = "done"
        overrides = study.overrides(name, seed)
        log.info("%s, seed %d: writing metrics.csv to %s", name, seed, runs.folder(overrides))
        try:
            runs.run(overrides, study.test)
        except RunStopped as stop:
            log.info("%s, seed %d: %s", name, seed, stop or "not started")
            return
        except UserError as error:
            outcome = str(error)
            failures.append(f"{name}, seed {seed}: {outcome}")
        finished.append((name, seed))
        minutes = (time.monotonic() - start) / 60
        left = minutes / len(finished) * (len(pending) - len(finished))
        progress = f"{len(finished)} of {len(pending)}"
        log.info("%s: %s, seed %d: %s; about %.0f min left", progress, name, seed, outcome, left)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(train, *zip(*pending, strict=True)))
        except Interrupted as stop:
            # The runs save a checkpoint before they end; the pool waits for them.
            runs.processes.stop(stop.signum)
            pool.shutdown(cancel_futures=True)
            remark = f"{len(finished)} of {len(pending)} runs have ended; the same command continues with the others"
            raise Interrupted(stop.signum, remark) from None
    return failures
