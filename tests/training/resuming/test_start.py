"""The checkpoint a training starts from, by resume, ckpt_path, init_from and the content of the run folder."""

from pathlib import Path

import pytest

from sapnet.checkpoints.files import add_metadata
from sapnet.checkpoints.lightning_io import AtomicCheckpointIO
from sapnet.errors import UserError
from sapnet.training.resuming.start import Start, choose_start
from tests.training.two_optimizers import MODEL


def write(path: Path, step: int) -> Path:
    content = {"state_dict": {}}
    add_metadata(content, MODEL, step)
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def other(tmp_path) -> str:
    """A checkpoint of another run, at step 50."""
    return str(write(tmp_path / "other.ckpt", 50))


def test_an_empty_folder_starts_from_the_arguments(folder, other):
    assert choose_start(folder, "auto") == choose_start(folder, "never") == Start()
    assert choose_start(folder, "auto", ckpt_path=other) == Start(Path(other))
    for resume in ("auto", "never"):
        assert choose_start(folder, resume, init_from=other) == Start(weights=Path(other))


def test_the_training_resumes_from_the_folder(folder):
    last = write(folder / "last.ckpt", 40)
    write(folder / "best.ckpt", 30)
    for resume in ("auto", "must"):
        for ckpt_path in (None, "last", str(last)):
            assert choose_start(folder, resume, ckpt_path) == Start(last)


@pytest.mark.parametrize("resume", ["auto", "must"])
@pytest.mark.parametrize("step", [50, 60])
def test_a_newer_checkpoint_of_the_folder_is_preferred(folder, other, resume, step):
    last = write(folder / "last.ckpt", step)
    start = choose_start(folder, resume, ckpt_path=other)
    assert start.checkpoint == last
    assert (
        start.note
        == f"{last} (step {step}) is not older than ckpt_path={other} (step 50): the training resumes from it"
    )


@pytest.mark.parametrize("resume", ["auto", "must"])
def test_an_older_checkpoint_of_the_folder_is_an_error(folder, other, resume):
    write(folder / "last.ckpt", 49)
    with pytest.raises(
        UserError, match=r"last.ckpt \(step 49\) is older than ckpt_path=\S+ \(step 50\) .* another run"
    ):
        choose_start(folder, resume, ckpt_path=other)


@pytest.mark.parametrize("name", ["best", "path"])
def test_rewinding_within_the_folder_is_reported(folder, name):
    last, best = write(folder / "last.ckpt", 40), write(folder / "best.ckpt", 30)
    start = choose_start(folder, "auto", "best" if name == "best" else str(best))
    assert start == Start(best, note=f"rewinding to {best}: {last} (step 40) will be overwritten")
    last.write_bytes(b"damaged")
    assert "(damaged) will be overwritten" in choose_start(folder, "must", "best").note


def test_a_checkpoint_of_the_folder_overrides_init_from(folder, other):
    last = write(folder / "last.ckpt", 1)
    start = choose_start(folder, "auto", init_from=other)
    assert start == Start(last, note=f"{last} exists: the training resumes from it, and init_from={other} is not used")


@pytest.mark.parametrize(
    ("has_last", "resume", "arguments", "message"),
    [
        (False, "must", {}, "resume=must, but there is no checkpoint .*last.ckpt"),
        (False, "must", {"ckpt_path": "OTHER"}, "resume=must, but there is no checkpoint .*last.ckpt"),
        (False, "must", {"ckpt_path": "best"}, "ckpt_path=best: there is no checkpoint .*best.ckpt"),
        (False, "auto", {"ckpt_path": "last"}, "ckpt_path=last: there is no checkpoint .*last.ckpt"),
        (True, "auto", {"ckpt_path": "best"}, "ckpt_path=best: there is no checkpoint .*best.ckpt"),
        (True, "auto", {"ckpt_path": "absent.ckpt"}, "absent.ckpt: there is no such checkpoint"),
        (True, "never", {}, "resume=never would overwrite .*last.ckpt"),
        (True, "never", {"ckpt_path": "OTHER"}, "resume=never would overwrite .*last.ckpt"),
        (True, "never", {"init_from": "OTHER"}, "resume=never would overwrite .*last.ckpt"),
        (
            False,
            "never",
            {"ckpt_path": "OTHER"},
            "resume=never starts a new training and ckpt_path=.* resumes one.*init_from",
        ),
        (False, "must", {"init_from": "OTHER"}, "resume=must resumes a training and init_from starts"),
        (True, "must", {"init_from": "OTHER"}, "resume=must resumes a training and init_from starts"),
        (True, "auto", {"init_from": "OTHER", "ckpt_path": "OTHER"}, "give one of them"),
        (False, "yes", {}, "resume=yes: use auto, must or never"),
    ],
)
def test_contradictions_are_user_errors(folder, other, has_last, resume, arguments, message):
    if has_last:
        write(folder / "last.ckpt", 99)
    with pytest.raises(UserError, match=message) as caught:
        choose_start(folder, resume, **{key: value.replace("OTHER", other) for key, value in arguments.items()})
    assert "\n" not in str(caught.value)
