import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sapnet.errors import UserError
from sapnet.files import exclusive
from sapnet.reporting.runs import Children, Runs, Stopped

WORDS = ["data=gopro", "data.root={data}/GOPRO_Large", "seed=0"]


def test_a_run_is_known_by_its_overrides_and_not_by_the_place_of_its_data(tmp_path):
    runs = Runs(tmp_path, "here")
    assert runs.folder(WORDS) == Runs(tmp_path, "there").folder(WORDS)
    assert runs.folder(WORDS) != runs.folder([*WORDS[:-1], "seed=1"])
    tested = runs.folder(WORDS, ["data=hide"])
    assert tested.is_relative_to(runs.folder(WORDS)) and tested != runs.folder(WORDS, ["data=reds"])


def test_runs_evaluated_at_the_last_checkpoint_keep_their_place_and_others_have_their_own(tmp_path):
    """Runs of earlier versions were all evaluated at the last one; `best` is the default now."""
    runs = Runs(tmp_path)
    last, best = runs.folder(["evaluate_checkpoint=last", "steps=1"]), runs.folder(["steps=1"])
    assert last.name == "87088bf649e0" and best != last
    assert best == runs.folder(["steps=1", "evaluate_checkpoint=best"])
    assert last == runs.folder(["steps=1", "evaluate_checkpoint=best", "evaluate_checkpoint=last"])


def test_a_run_that_needs_data_says_so_before_it_begins(tmp_path):
    with pytest.raises(UserError, match="data_root=FOLDER"):
        Runs(tmp_path).do(WORDS)
    assert not list(tmp_path.iterdir())


def test_a_run_that_is_done_is_not_done_again(tmp_path):
    """Not done, it would ask for the data, which is not there."""
    runs = Runs(tmp_path)
    runs.folder(WORDS).mkdir()
    (runs.folder(WORDS) / "done.json").write_text("{}")
    (runs.folder(WORDS) / "results.jsonl").write_text("{}\n")
    runs.do(WORDS)


def test_a_mark_without_results_is_not_believed(tmp_path):
    """Earlier versions left one where a signal had ended the training. Here it asks for data that is not there."""
    runs = Runs(tmp_path)
    runs.folder(WORDS).mkdir()
    (runs.folder(WORDS) / "done.json").write_text("{}")
    with pytest.raises(UserError, match="data_root=FOLDER"):
        runs.do(WORDS)


def test_who_waited_for_a_run_does_not_repeat_it(tmp_path):
    """Two tables ask for the same run at a time: the second finds it done."""
    runs, overrides = Runs(tmp_path), ["steps=1"]
    folder = runs.folder(overrides)
    with ThreadPoolExecutor(1) as pool, exclusive(folder / ".lock"):
        waiting = pool.submit(runs.do, overrides)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        (folder / "results.jsonl").write_text("{}\n")
        (folder / "done.json").write_text("{}")
    assert waiting.result() is None and not (folder / "begun.json").exists()


def test_who_waits_for_a_run_can_be_stopped(tmp_path):
    runs, overrides = Runs(tmp_path), ["steps=1"]
    with ThreadPoolExecutor(1) as pool, exclusive(runs.folder(overrides) / ".lock"):
        waiting = pool.submit(runs.do, overrides)
        runs.children.stop(signal.SIGTERM)
        with pytest.raises(Stopped):
            waiting.result(timeout=10)


def test_a_signal_is_passed_on_to_the_processes_that_run(tmp_path):
    children, code = Children(), "import time; print('up', flush=True); time.sleep(60)"
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(children.run, [sys.executable, "-c", code]) for _ in range(2)]
        time.sleep(0.5)
        children.stop(signal.SIGTERM)
        assert [each.result(timeout=10).returncode for each in running] == [-signal.SIGTERM] * 2
    with pytest.raises(Stopped):
        children.run([sys.executable, "-c", code])


@pytest.mark.slow
def test_a_run_that_diverges_is_a_result_and_is_not_repeated(tmp_path):
    runs = Runs(tmp_path)
    words = [
        "network=small",
        "network.stem=4",
        "network.channels=[4,4,4]",
        "data.train=6",
        "data.val=2",
        "data.size=64",
    ]
    words += ["data.batch=2", "steps=40", "validate_every=40", "optim.optimizer.lr=1e6", "optim.clip_norm=null"]
    runs.do(words)
    folder = runs.folder(words)
    first = (folder / "diverged.json").stat().st_mtime_ns
    assert not (folder / "done.json").exists() and "generator step" in (folder / "diverged.json").read_text()
    runs.do(words)
    assert (folder / "diverged.json").stat().st_mtime_ns == first
