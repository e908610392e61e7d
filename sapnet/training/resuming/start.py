"""Choose the checkpoint from which a training starts."""

from dataclasses import dataclass
from pathlib import Path

from sapnet.checkpoints.files import load_checkpoint
from sapnet.errors import UserError

#: Values of `ckpt_path` that name a checkpoint of the run folder.
_NAMES = {"last": "last.ckpt", "best": "best.ckpt"}


@dataclass(frozen=True)
class Start:
    """Start of a training.

    Attributes:
        checkpoint: Checkpoint to resume from; None for a new training.
        weights: Checkpoint whose weights initialise a new training; None for random weights.
        note: Message for the user about the choice.
    """

    checkpoint: Path | None = None
    weights: Path | None = None
    note: str | None = None


def choose_start(folder: Path, resume: str, ckpt_path: str | None = None, init_from: str | None = None) -> Start:
    """Choose the checkpoint from which a training starts.

    `resume` refers to `last.ckpt` of the run folder. A checkpoint of another folder never replaces a newer one of the
    run folder: the training then resumes from the latter, so that a command can be repeated after an interruption. A
    checkpoint of the run folder that `ckpt_path` names is always used.

    Args:
        folder: Checkpoint folder of the run.
        resume: `auto` (resume if the folder has a checkpoint), `must` (require one) or `never` (require that there is
            none).
        ckpt_path: Checkpoint to resume from: a path, or `last` or `best` for those of the folder.
        init_from: Checkpoint whose weights initialise a new training.

    Raises:
        UserError: The arguments contradict each other or the content of the folder, or a checkpoint cannot be read.
    """
    last = folder / _NAMES["last"]
    if resume not in ("auto", "must", "never"):
        raise UserError(f"resume={resume}: use auto, must or never.")
    if ckpt_path is not None and init_from is not None:
        raise UserError("ckpt_path resumes a training and init_from starts a new one: give one of them.")
    if resume == "never":
        return _new_training(last, ckpt_path, init_from)
    if resume == "must" and init_from is not None:
        raise UserError("resume=must resumes a training and init_from starts a new one: leave one of them out.")
    if ckpt_path is not None and (own := _path_in_folder(folder, ckpt_path)) is not None:
        return _own_checkpoint(own, last, ckpt_path)
    if not last.is_file():
        if resume == "must":
            raise UserError(f"resume=must, but there is no checkpoint {last}: use the folder of a run that saved one.")
        return Start(_path(ckpt_path), _path(init_from))
    if ckpt_path is not None:
        return _check_newer(last, Path(ckpt_path))
    note = (
        None
        if init_from is None
        else f"{last} exists: the training resumes from it, and init_from={init_from} is not used"
    )
    return Start(last, note=note)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _new_training(last: Path, ckpt_path: str | None, init_from: str | None) -> Start:
    if last.exists():
        raise UserError(
            f"resume=never would overwrite {last}: use resume=auto to resume from it, or another run folder."
        )
    if ckpt_path is not None:
        raise UserError(
            f"resume=never starts a new training and ckpt_path={ckpt_path} resumes one: leave one of them out, or"
            " use init_from to load only the weights."
        )
    return Start(weights=_path(init_from))


def _path_in_folder(folder: Path, ckpt_path: str) -> Path | None:
    if ckpt_path in _NAMES:
        return folder / _NAMES[ckpt_path]
    inside = Path(ckpt_path).resolve().parent == folder.resolve()
    return folder / Path(ckpt_path).name if inside else None


def _own_checkpoint(own: Path, last: Path, ckpt_path: str) -> Start:
    if not own.is_file():
        raise UserError(f"ckpt_path={ckpt_path}: there is no checkpoint {own}; leave it out to start a new training.")
    if own.name == last.name or not last.is_file():
        return Start(own)
    try:
        state = f"step {_step(last)}"
    except UserError:
        state = "damaged"
    return Start(own, note=f"rewinding to {own}: {last} ({state}) will be overwritten")


def _check_newer(last: Path, other: Path) -> Start:
    step, other_step = _step(last), _step(other)
    if step < other_step:
        raise UserError(
            f"{last} (step {step}) is older than ckpt_path={other} (step {other_step}) and would be overwritten: use"
            " another run folder, or leave out ckpt_path to resume from the folder's own checkpoint."
        )
    note = f"{last} (step {step}) is not older than ckpt_path={other} (step {other_step}): the training resumes from it"
    return Start(last, note=note)


def _step(path: Path) -> int:
    return load_checkpoint(path)["sapnet"]["generator_steps"]
