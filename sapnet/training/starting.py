"""Where a training starts: at the run folder's last checkpoint, at a named one, from one's weights, or from nothing."""

from dataclasses import dataclass
from pathlib import Path

from sapnet.errors import UserError
from sapnet.training.checkpoints import load_checkpoint

#: Names for the files of the run folder.
_OWN = {"last": "last.ckpt", "best": "best.ckpt"}


@dataclass(frozen=True)
class Start:
    """Where a training starts.

    Attributes:
        checkpoint: Checkpoint to resume from; None: a new training.
        weights: Checkpoint whose weights a new training starts with; None: random weights.
        note: What the user should know about the choice.
    """

    checkpoint: Path | None = None
    weights: Path | None = None
    note: str | None = None


def choose_start(folder: Path, resume: str, ckpt_path: str | None = None, init_from: str | None = None) -> Start:
    """Choose where a training starts.

    `resume` refers to the folder's own `last.ckpt`, whatever else is given. A checkpoint from elsewhere never replaces
    a newer one in the folder: the training resumes from the folder's own, so that a command can be repeated after an
    interruption. A file of the folder itself is always used, since the user has named it.

    Args:
        folder: The run's checkpoints.
        resume: `auto` (resume from the folder's checkpoint where there is one), `must` (there has to be one) or `never`
            (there must be none).
        ckpt_path: A checkpoint to resume from: a path, or `last` or `best` for those of the folder.
        init_from: A checkpoint whose weights a new training starts with.

    Raises:
        UserError: The three contradict each other or the folder; or a checkpoint that has to be read cannot be.
    """
    last = folder / _OWN["last"]
    if resume not in ("auto", "must", "never"):
        raise UserError(f"resume={resume}: it can be auto, must or never.")
    if ckpt_path is not None and init_from is not None:
        raise UserError("ckpt_path resumes a training and init_from starts a new one: give one of them.")
    if resume == "never":
        return _start_afresh(last, ckpt_path, init_from)
    if resume == "must" and init_from is not None:
        raise UserError("resume=must resumes a training and init_from starts a new one: leave one of them out.")
    if ckpt_path is not None and (own := _own_file(folder, ckpt_path)) is not None:
        return _own_checkpoint(own, last, ckpt_path)
    if not last.is_file():
        if resume == "must":
            raise UserError(f"resume=must, but there is no checkpoint {last}: give the folder of a run that saved one.")
        return Start(_path(ckpt_path), _path(init_from))
    if ckpt_path is not None:
        return _newer_of(last, Path(ckpt_path))
    note = (
        None
        if init_from is None
        else f"{last} exists: the training resumes from it, and init_from={init_from} is not used"
    )
    return Start(last, note=note)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _start_afresh(last: Path, ckpt_path: str | None, init_from: str | None) -> Start:
    if last.exists():
        raise UserError(
            f"resume=never would overwrite {last}: use resume=auto to resume from it, or another run folder."
        )
    if ckpt_path is not None:
        raise UserError(
            f"resume=never starts a new training and ckpt_path={ckpt_path} resumes one: leave one of them out, or"
            " take the weights alone with init_from."
        )
    return Start(weights=_path(init_from))


def _own_file(folder: Path, ckpt_path: str) -> Path | None:
    if ckpt_path in _OWN:
        return folder / _OWN[ckpt_path]
    inside = Path(ckpt_path).resolve().parent == folder.resolve()
    return folder / Path(ckpt_path).name if inside else None


def _own_checkpoint(own: Path, last: Path, ckpt_path: str) -> Start:
    if not own.is_file():
        raise UserError(f"ckpt_path={ckpt_path}: there is no checkpoint {own}; leave it out to start a new training.")
    if own.name == last.name or not last.is_file():
        return Start(own)
    try:
        lost = f"step {_step(last)}"
    except UserError:
        lost = "damaged"
    return Start(own, note=f"rewinding to {own}: {last} ({lost}) will be overwritten")


def _newer_of(last: Path, other: Path) -> Start:
    step, other_step = _step(last), _step(other)
    if step < other_step:
        raise UserError(
            f"{last} (step {step}) is older than ckpt_path={other} (step {other_step}) and would be overwritten: give"
            " another run folder, or leave out ckpt_path to resume from the folder's own checkpoint."
        )
    note = f"{last} (step {step}) is not older than ckpt_path={other} (step {other_step}): the training resumes from it"
    return Start(last, note=note)


def _step(path: Path) -> int:
    return load_checkpoint(path)["sapnet"]["generator_steps"]
