import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sapnet.errors import UserError
from sapnet.files import exclusive
from sapnet.reporting.runs import RunProcesses, RunStopped, RunStore

WORDS = ["data=gopro", "data.root={data}/GOPRO_Large", "seed=0"]


def test_folder_depends_on_overrides_and_not_on_the_location_of_the_data(tmp_path):
    runs = RunStore(tmp_path, "here")
    assert runs.folder(WORDS) == RunStore(tmp_path, "there").folder(WORDS)
    assert runs.folder(WORDS) != runs.folder([*WORDS[:-1], "seed=1"])
    tested = runs.folder(WORDS, ["data=hide"])
    assert tested.is_relative_to(runs.folder(WORDS)) and tested != runs.folder(WORDS, ["data=reds"])


def test_folder_depends_on_the_evaluated_checkpoint(tmp_path):
    """Earlier versions evaluated the last checkpoint; the default is now `best`."""
    runs = RunStore(tmp_path)
    last, best = runs.folder(["evaluate_checkpoint=last", "steps=1"]), runs.folder(["steps=1"])
    assert last.name == "87088bf649e0" and best != last
    assert best == runs.folder(["steps=1", "evaluate_checkpoint=best"])
    assert last == runs.folder(["steps=1", "evaluate_checkpoint=best", "evaluate_checkpoint=last"])


def test_missing_data_is_reported_before_the_run(tmp_path):
    with pytest.raises(UserError, match="data_root=FOLDER"):
        RunStore(tmp_path).run(WORDS)
    assert not list(tmp_path.iterdir())


def test_finished_run_is_not_repeated(tmp_path):
    """An unfinished run would raise an error because of the missing data."""
    runs = RunStore(tmp_path)
    runs.folder(WORDS).mkdir()
    (runs.folder(WORDS) / "done.json").write_text("{}")
    (runs.folder(WORDS) / "results.jsonl").write_text("{}\n")
    runs.run(WORDS)


def test_done_marker_without_results_is_ignored(tmp_path):
    """Earlier versions left one if a signal ended the training."""
    runs = RunStore(tmp_path)
    runs.folder(WORDS).mkdir()
    (runs.folder(WORDS) / "done.json").write_text("{}")
    with pytest.raises(UserError, match="data_root=FOLDER"):
        runs.run(WORDS)


def test_waiting_process_does_not_repeat_a_finished_run(tmp_path):
    """Two tables can need the same run at the same time."""
    runs, overrides = RunStore(tmp_path), ["steps=1"]
    folder = runs.folder(overrides)
    with ThreadPoolExecutor(1) as pool, exclusive(folder / ".lock"):
        waiting = pool.submit(runs.run, overrides)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        (folder / "results.jsonl").write_text("{}\n")
        (folder / "done.json").write_text("{}")
    assert waiting.result() is None and not (folder / "begun.json").exists()


def test_waiting_process_can_be_stopped(tmp_path):
    runs, overrides = RunStore(tmp_path), ["steps=1"]
    with ThreadPoolExecutor(1) as pool, exclusive(runs.folder(overrides) / ".lock"):
        waiting = pool.submit(runs.run, overrides)
        runs.processes.stop(signal.SIGTERM)
        with pytest.raises(RunStopped):
            waiting.result(timeout=10)


def test_signal_is_forwarded_to_active_processes(tmp_path):
    children, code = RunProcesses(), "import time; print('up', flush=True); time.sleep(60)"
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(children.run, [sys.executable, "-c", code]) for _ in range(2)]
        time.sleep(0.5)
        children.stop(signal.SIGTERM)
        assert [each.result(timeout=10).returncode for each in running] == [-signal.SIGTERM] * 2
    with pytest.raises(RunStopped):
        children.run([sys.executable, "-c", code])


@pytest.mark.slow
def test_diverged_run_is_not_repeated(tmp_path):
    runs = RunStore(tmp_path)
    arguments = ["network=small", "network.stem=4", "network.channels=[4,4,4]", "data.train=6", "data.val=2"]
    arguments += [
        "data.size=64",
        "data.batch=2",
        "steps=40",
        "validate_every=40",
        "optim.optimizer.lr=1e6",
        "optim.clip_norm=null",
    ]
    runs.run(arguments)
    folder = runs.folder(arguments)
    first = (folder / "diverged.json").stat().st_mtime_ns
    assert not (folder / "done.json").exists() and "generator step" in (folder / "diverged.json").read_text()
    runs.run(arguments)
    assert (folder / "diverged.json").stat().st_mtime_ns == first
