"""Checks of user input: ranges of config values, and writable folders."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from sapnet.errors import UserError


@dataclass(frozen=True)
class Number:
    """A number in a range.

    Attributes:
        low: Smallest value.
        high: Largest value; None for no upper bound.
        whole: Whether the number must be an integer.
        above: Whether `low` itself is excluded.
        below: Whether `high` itself is excluded.
        null: Meaning of `null`; empty if `null` is not allowed.
    """

    low: float
    high: float | None = None
    whole: bool = False
    above: bool = False
    below: bool = False
    null: str = ""

    def allows(self, value: Any) -> bool:
        """Return whether a value is in the range."""
        if value is None:
            return bool(self.null)
        types = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, types) or not math.isfinite(value):
            return False
        if value < self.low or (self.above and value == self.low):
            return False
        return self.high is None or (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        noun = "a whole number" if self.whole else "a number"
        low = f"{'above' if self.above else 'from'} {self.low:g}"
        if self.high is None:
            text = f"{noun} {low}" if self.above else f"{noun}, {self.low:g} or more"
        else:
            high = f"{self.high:.10g}"
            text = f"{noun} {low} " + (f"to below {high}" if self.below else f"to {high}")
        return text + (f", or null for {self.null}" if self.null else "")


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    options: tuple[Any, ...]

    def allows(self, value: Any) -> bool:
        """Return whether a value is one of them."""
        return any(type(value) is type(option) and value == option for option in self.options)

    def __str__(self) -> str:
        names = ["null" if option is None else str(option).lower() for option in self.options]
        return f"{', '.join(names[:-1])} or {names[-1]}"


@dataclass(frozen=True)
class Text:
    """A string, such as a path."""

    def allows(self, value: Any) -> bool:
        """Return whether a value is a string."""
        return isinstance(value, str)

    def __str__(self) -> str:
        return "text"


@dataclass(frozen=True)
class ListOf:
    """A list whose entries all follow one rule.

    Attributes:
        entry: Rule of each entry.
        empty: Whether the list may be empty.
        null: Meaning of `null`; empty if `null` is not allowed.
    """

    entry: Number | Text
    empty: bool = False
    null: str = ""

    def allows(self, value: Any) -> bool:
        """Return whether a value is such a list."""
        if value is None:
            return bool(self.null)
        if not isinstance(value, list | ListConfig) or not (len(value) or self.empty):
            return False
        return all(self.entry.allows(item) for item in value)

    def __str__(self) -> str:
        text = f"a list; each entry is {self.entry}"
        return text + (f"; or null for {self.null}" if self.null else "")


_COUNT = Number(1, whole=True)
_SEED = Number(0, 2**32 - 1, whole=True)
_FLAG = Choice((True, False))
_SHARE = Number(0, 1)

#: Rules for the values of the configs of all commands. A key is checked if the config has it.
RULES: Mapping[str, Number | Choice | ListOf] = {
    # Training.
    "steps": _COUNT,
    "stagewise": ListOf(Number(0, 1, below=True), empty=True),
    "seed": _SEED,
    "resume": Choice(("auto", "must", "never")),
    "validate_every": _COUNT,
    "checkpoint_every": Number(1, whole=True, null="none between validations"),
    "checkpoint_minutes": Number(0, above=True, null="none between validations"),
    "evaluate": _FLAG,
    "evaluate_checkpoint": Choice(("best", "last")),
    "optim.optimizer.lr": Number(0, above=True),
    "optim.clip_norm": Number(0, above=True, null="no clipping"),
    "optim.scheduler.every": _COUNT,
    "optim.scheduler.warm_up": Number(0, 1, below=True),
    "callbacks.ema.decay": Number(0, 1, below=True),
    "callbacks.early_stopping.patience": _COUNT,
    "callbacks.top_k.save_top_k": Number(-1, whole=True),
    "loss.epsilon": Number(0, above=True),
    "loss.frequency": Number(0),
    "loss.edge": Number(0),
    "policy.rate": Number(0, above=True),
    "policy.pretrain": _SHARE,
    "policy.settle": _SHARE,
    # Networks.
    "network.stem": _COUNT,
    "network.channels": ListOf(_COUNT),
    "network.width": Number(4, whole=True),
    "network.width_step": Number(0, whole=True),
    "network.last_width": _COUNT,
    "network.gate_widths": ListOf(_COUNT),
    "network.pyramid.width": Number(2, whole=True),
    "network.blocks": _COUNT,
    "network.refinement": _COUNT,
    "network.depths": ListOf(_COUNT),
    "network.heads": ListOf(_COUNT),
    "network.expansion": Number(0, above=True),
    "network.dropout": Number(0, 1, below=True),
    "network.drop_path": Number(0, 1, below=True),
    "network.stages": Number(1, 4, whole=True),
    "sampling.budget": Number(-1, 3, above=True, null="the budget of the training"),
    "window": Number(1, whole=True, null="the whole image"),
    # Data. `data.train`, `data.val` and `data.test` are numbers of scenes, or nodes with folders.
    "data.crop": Number(16, whole=True),
    "data.batch": _COUNT,
    "data.eval_batch": _COUNT,
    "data.workers": Number(0, whole=True, null="one a core, four at most"),
    "data.seed": _SEED,
    "data.scene_seed": _SEED,
    "data.size": Number(32, whole=True),
    "data.train": _COUNT,
    "data.val": _COUNT,
    "data.test": _COUNT,
    "data.val_share": Number(0, 1, below=True),
    "data.gamma": Number(1, 4, null="an average of the stored values"),
    # Evaluation, demo, studies, counting.
    "save_images": _FLAG,
    "ema": _FLAG,
    "study": Choice(("map", "policy", "points", True, False, None)),
    "training_seconds": Number(0, above=True),
    "picture_scenes": _COUNT,
    "seeds": ListOf(_SEED, null="those of the study"),
    "jobs": _COUNT,
    "overrides": ListOf(Text(), empty=True),
    "checkpoints": ListOf(Text(), empty=True),
    "render_only": _FLAG,
    "height": _COUNT,
    "width": _COUNT,
    "depth": _COUNT,
    "measure": _FLAG,
}
_ABSENT = object()


def check_values(config: DictConfig) -> None:
    """Check the values of a composed config against `RULES`.

    Raises:
        UserError: A value has the wrong type or is out of range. The message names the key, the value and the rule.
    """
    for key, rule in RULES.items():
        value = OmegaConf.select(config, key, default=_ABSENT)
        if value is _ABSENT or isinstance(value, DictConfig) or (value is None and _parent_is_null(config, key)):
            continue
        if not rule.allows(value):
            raise UserError(f"{key}={_as_text(value)}: give {rule}.")


def _parent_is_null(config: DictConfig, key: str) -> bool:
    # With `data: null` there is no `data.crop`.
    group = key.rpartition(".")[0]
    return bool(group) and OmegaConf.select(config, group) is None


def _as_text(value: Any) -> str:
    if isinstance(value, ListConfig):
        return f"[{','.join(map(_as_text, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def check_writable(folder: str | Path) -> None:
    """Check that files can be written to a folder, which may not exist yet; no file or folder is created.

    Raises:
        UserError: They cannot be written: the path is a file, the file system is read-only, or permission is denied.
    """
    folder = Path(folder)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists() or path.is_symlink())
    if not existing.is_dir():
        raise UserError(f"{folder}: {existing} is a file, not a folder; use another path, or move the file.")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"{folder}: {existing} is not writable ({error.strerror or error}); use another folder."
        ) from error
