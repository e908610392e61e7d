"""Contexts of result lines and selection of one evaluation."""

from pathlib import Path

import pytest

from sapnet.errors import UserError
from sapnet.evaluation.checkpoints import checkpoint_kind, evaluated_checkpoint
from sapnet.evaluation.result_contexts import context_id, context_of, read_evaluation
from sapnet.evaluation.results_file import append_result


def write(path: Path, psnr: float, names: str = "ab", **context) -> None:
    for name in names:
        append_result(path, {"name": name, "stage_psnr": [psnr], "seconds": 1.0, "threads": 2, **context})


def values(path: Path, kind: str = "last") -> dict[str, float]:
    return {line["name"]: line["stage_psnr"][0] for line in read_evaluation(path, kind)}


def test_measurements_do_not_belong_to_the_context():
    one = {"name": "a", "stage_psnr": [1.0], "seconds": 1.0, "threads": 2, "device_name": "x", "checkpoint": "c"}
    other = {"name": "b", "stage_psnr": [2.0], "seconds": 2.0, "threads": 4, "device_name": "y", "checkpoint": "c"}
    assert context_of(one) == context_of(other) and context_id(one) == context_id(other)
    assert context_id(one) != context_id({**one, "checkpoint": "d"})
    assert context_id(one) == context_id({**one, "window": None, "checkpoint_kind": "last"}), (
        "defaults of earlier versions"
    )


def test_newest_evaluation_of_a_kind_is_selected(tmp_path):
    path = tmp_path / "results.jsonl"
    write(path, 1.0, checkpoint="old", checkpoint_kind="best", data="x", generator_steps=1)
    write(path, 2.0, checkpoint="new", checkpoint_kind="best", data="x", generator_steps=2)
    write(path, 3.0, checkpoint="end", checkpoint_kind="last", data="x", generator_steps=3)
    assert values(path, "best") == {"a": 2.0, "b": 2.0}
    assert values(path, "last") == {"a": 3.0, "b": 3.0}
    write(path, 1.5, "a", checkpoint="old", checkpoint_kind="best", data="x", generator_steps=1)
    assert values(path, "best") == {"a": 1.5, "b": 1.0}, "a repeated line makes its context the newest"


def test_last_checkpoint_is_selected_without_a_best_one(tmp_path):
    path = tmp_path / "results.jsonl"
    assert read_evaluation(path) == []
    write(path, 1.0, checkpoint="c", data="x")
    assert values(path, "last") == values(path, "best") == {"a": 1.0, "b": 1.0}


def test_repeated_line_counts_once(tmp_path):
    path = tmp_path / "results.jsonl"
    for _ in range(2):
        write(path, 1.0, checkpoint="c")
    assert len(read_evaluation(path)) == 2


@pytest.mark.parametrize(
    ("key", "one", "other"),
    [("budget", 0, 0.5), ("data_arguments", {"scenes": 4}, {"scenes": 2}), ("protocol", "p", "q"), ("window", 32, 64)],
)
def test_evaluations_that_differ_in_other_keys_are_rejected(tmp_path, key, one, other):
    path = tmp_path / "results.jsonl"
    write(path, 1.0, "abcd", checkpoint="c", **{key: one})
    write(path, 2.0, checkpoint="c", **{key: other})
    with pytest.raises(UserError, match=rf"results.jsonl holds several evaluations \({key}: .*hydra.run.dir"):
        read_evaluation(path)


def test_best_checkpoint_or_last_with_a_warning(tmp_path, caplog):
    (tmp_path / "last.ckpt").touch()
    assert evaluated_checkpoint(tmp_path) == tmp_path / "last.ckpt"
    assert "no validation was made" in caplog.text
    (tmp_path / "best.ckpt").touch()
    caplog.clear()
    assert evaluated_checkpoint(tmp_path) == tmp_path / "best.ckpt"
    assert evaluated_checkpoint(tmp_path, "last") == tmp_path / "last.ckpt" and not caplog.text


def test_kind_is_the_file_name():
    kinds = [checkpoint_kind(f"run/checkpoints/{name}") for name in ("best.ckpt", "last.ckpt", "mine.ckpt")]
    assert kinds == ["best", "last", "given"]
