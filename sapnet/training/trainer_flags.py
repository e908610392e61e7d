"""Flags of Lightning's Trainer in a composed config: `trainer.FLAG=VALUE`."""

import difflib
import inspect
import warnings
from pathlib import Path
from typing import Any, cast

import hydra
import pytorch_lightning as pl
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler

from sapnet.checkpoints.lightning_io import AtomicCheckpointIO
from sapnet.errors import UserError

_LENGTH = "the length of a training is steps=N"
_CLIPPING = "each optimizer clips its own gradients: use optim.clip_norm=NORM"
#: Flags that an option of sapnet replaces, or that exclude each other with it; the way out as the end of a sentence.
REPLACED = {
    "max_steps": f"Lightning counts the steps of all optimizers; {_LENGTH}",
    "min_steps": _LENGTH,
    "max_epochs": _LENGTH,
    "min_epochs": _LENGTH,
    "gradient_clip_val": _CLIPPING,
    "gradient_clip_algorithm": _CLIPPING,
    "accumulate_grad_batches": "a step takes one batch: use data.batch=N, the size for each process",
    "logger": "use logger=csv, tensorboard, wandb or none",
    "callbacks": "use callbacks=[default,NAME], the options of the group callbacks",
    "default_root_dir": "use hydra.run.dir=FOLDER",
    "enable_checkpointing": "last.ckpt is always written; callbacks=[] leaves out best.ckpt",
    "barebones": "last.ckpt is always written; use logger=none callbacks=[]",
    "fast_dev_run": "it saves no checkpoint to evaluate; use debug=fast",
    "reload_dataloaders_every_n_epochs": "the loader draws a new order for each epoch by itself; leave it out",
}
#: Flags of which a value that changes nothing is accepted, with that value.
_NEUTRAL = {"max_epochs": -1, "enable_checkpointing": True}
_PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}


def check_trainer_flags(trainer: DictConfig) -> None:
    """Check the flags of the trainer, before anything is written.

    Raises:
        UserError: A flag does not exist or is replaced by an option of sapnet, or Lightning refuses its value on this
            machine.
    """
    known = _known_flags(trainer)
    flags = {key: value for key, value in trainer.items() if not str(key).startswith("_")}
    for key, value in flags.items():
        if key not in known:
            similar = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean trainer.{similar[0]}? " if similar else ""
            raise UserError(f"trainer.{key}: Lightning's Trainer has no such flag; {hint}See docs/lightning.md.")
        if key in REPLACED and value not in (known[key], _NEUTRAL.get(key, known[key])):
            raise UserError(f"trainer.{key}={_as_text(value)}: {REPLACED[key]}.")
    _check_values(trainer)


def trainer_arguments(trainer: DictConfig, folder: Path) -> dict[str, Any]:
    """Return arguments of the Trainer that its node of the config does not determine alone.

    Args:
        trainer: Node of the config.
        folder: Run folder, to which a profile is written.
    """
    own = hydra.utils.instantiate(trainer.get("plugins"), _convert_="all") or []
    arguments: dict[str, Any] = {"plugins": [*(own if isinstance(own, list) else [own]), AtomicCheckpointIO()]}
    profiler = trainer.get("profiler")
    if profiler in _PROFILERS:
        # Without a file, Lightning logs the profile at a level that is silenced.
        arguments["profiler"] = _PROFILERS[profiler](dirpath=folder, filename="profile")
    return arguments


def _known_flags(trainer: DictConfig) -> dict[str, Any]:
    classes = {pl.Trainer, hydra.utils.get_class(trainer._target_)}
    signatures = [inspect.signature(kind.__init__) for kind in classes]
    return {name: value.default for one in signatures for name, value in one.parameters.items() if name != "self"}


def _check_values(trainer: DictConfig) -> None:
    """Build a trainer; if Lightning refuses, name the first flag with which it does."""
    flags = cast(dict[str, Any], OmegaConf.to_container(trainer, resolve=True))
    error = _refusal(flags)
    if error is None:
        return
    tried = {"_target_": flags.pop("_target_")}
    for key, value in flags.items():
        tried[key] = value
        if _refusal(tried) is not None:
            way_out = " Use trainer.accelerator=auto or cpu." if key == "accelerator" else ""
            raise UserError(f"trainer.{key}={_as_text(value)}: {_reason(error)}{way_out}")
    raise UserError(f"trainer: {_reason(error)}")


def _refusal(flags: dict[str, Any]) -> InstantiationException | None:
    own = {"logger": False, "callbacks": None, "enable_progress_bar": False}
    try:
        with warnings.catch_warnings():
            # They come again when the trainer of the run is built.
            warnings.simplefilter("ignore")
            hydra.utils.instantiate(flags | own, _convert_="all")
    except InstantiationException as error:
        return error
    return None


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _as_text(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
