"""Compare the configuration of a resumed training with the one that its checkpoint was written under.

Some settings may change in the middle of a training: they are applied and reported. Any other change would make the
result of the run something that none of its two configurations describes: it is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from sapnet import __version__
from sapnet.errors import UserError
from sapnet.training.architecture import flat
from sapnet.training.phases import make_phases

#: How a command starts, which is not part of what it trains.
_IGNORED = ("resume", "ckpt_path", "init_from")
#: What may change when a training is resumed, as shell patterns.
_FREE = (
    "steps",
    "optim.*",
    "policy.rate",
    *("validate_every", "checkpoint_*", "evaluate*", "study", "logger", "logger.*", "name", "group", "tags"),
    *("data.workers", "data.eval_batch", "data.cache", "data.store"),
    # The place of the data: a folder that was moved. How many pairs it holds is compared when it has been read.
    *("data.root", "data.train.blurred", "data.train.sharp", "data.val.blurred", "data.val.sharp"),
    *("data.test", "data.test.*"),
    *("trainer.accelerator", "trainer.strategy", "trainer.val_check_interval", "trainer.check_val_every_n_epoch"),
    *("trainer.log_every_n_steps", "trainer.num_sanity_val_steps", "trainer.limit_val_batches", "trainer.enable_*"),
    *("trainer.benchmark", "trainer.deterministic", "trainer.detect_anomaly", "trainer.profiler", "trainer.max_time"),
)
#: Exceptions: the optimizer's stored state would not fit.
_FIXED = ("optim.optimizer._target_", "optim.optimizer.amsgrad")
#: Precisions between which a training may change: all of them hold the weights in float32.
_PRECISIONS = ("32", "32-true", "bf16-mixed", "16", "16-mixed")


@dataclass(frozen=True)
class Change:
    """A setting that differs from the checkpoint's."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        """Key, old and new value."""
        return f"{self.key}: {as_override(self.old)} -> {as_override(self.new)}"

    @property
    def allowed(self) -> bool:
        """Whether a training may be resumed with it."""
        if self.key == "trainer.precision":
            return {str(self.old), str(self.new)} <= set(_PRECISIONS)
        return self.key not in _FIXED and any(fnmatchcase(self.key, pattern) for pattern in _FREE)


def as_override(value: Any) -> str:
    """Return a value as it is written on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(as_override, value))}]"
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def changes_since(checkpoint: Mapping[str, Any], config: DictConfig, path: Path) -> list[Change] | None:
    """Return what has changed since a checkpoint was written, all of it allowed.

    Args:
        checkpoint: As `load_checkpoint` returns it.
        config: The present configuration.
        path: Of the checkpoint, for messages.

    Returns:
        The changes; None where the checkpoint carries no configuration, as those of earlier versions.

    Raises:
        UserError: Something has changed that cannot, or there are no steps left to take.
    """
    own = checkpoint["sapnet"]
    stored = own.get("config")
    if not isinstance(stored, Mapping):
        return None
    changes = _changes(stored, config, same_version=own.get("version") == __version__)
    refused = [change for change in changes if not change.allowed]
    if refused:
        named = ", ".join(map(str, refused[:3])) + (f" and {len(refused) - 3} more" if len(refused) > 3 else "")
        raise UserError(
            f"{named} cannot change when a training is resumed ({path}, step {own['generator_steps']}): use"
            f" {refused[0].key}={as_override(refused[0].old)}, or start a new training in another run folder"
            f" (with these weights: init_from={path})."
        )
    _check_steps(stored, config, own["generator_steps"], path)
    return changes


def _changes(stored: Mapping[str, Any], config: DictConfig, same_version: bool) -> list[Change]:
    then, now = flat(stored), flat(plain(config))
    keys = [key for key in {**then, **now} if key not in _IGNORED]
    if not same_version:
        # Another version of the code may have had other keys.
        keys = [key for key in keys if key in then and key in now]
    changes = [Change(key, then.get(key), now.get(key)) for key in keys if then.get(key) != now.get(key)]
    copied = _interpolated(config)
    derived = [c for c in changes if any(c.key == key or c.key.startswith(f"{key}.") for key in copied)]
    sources = {(repr(c.old), repr(c.new)) for c in changes if c not in derived}
    return [c for c in changes if c not in derived or (repr(c.old), repr(c.new)) not in sources]


def plain(config: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """Return a configuration as plain dicts and lists."""
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=resolve))


def _interpolated(config: DictConfig) -> tuple[str, ...]:
    # Keys whose value, or all values below them, are those of another key: one change is reported once.
    written = flat(plain(config, resolve=False))
    return tuple(key for key, value in written.items() if isinstance(value, str) and "${" in value)


def _check_steps(stored: Mapping[str, Any], config: DictConfig, step: int, path: Path) -> None:
    steps, before = config.steps, stored.get("steps")
    if steps == before or before is None:
        return
    if steps < step:
        raise UserError(f"steps={steps}: {path} is at step {step} already; give more steps, or use steps={before}.")
    pretrain = config.policy.pretrain if config.sampling.get("sampler") == "learned" else 0.0
    part, part_before = (_part(step, total, config.stagewise, pretrain) for total in (steps, before))
    if part < part_before:
        raise UserError(
            f"steps: {before} -> {steps} would take the training at step {step} back to a part that it has completed,"
            " because stagewise and policy.pretrain are shares of the steps: use fewer"
            f" steps, or start a new training with these weights (init_from={path}) in another run folder."
        )


def _part(step: int, steps: int, stagewise: Sequence[float], pretrain: float) -> tuple[int, bool]:
    phases = make_phases(steps, stagewise)
    number = next((i for i, phase in enumerate(phases) if step < phase.end), len(phases) - 1)
    return number, step >= phases[number].begin + round(pretrain * phases[number].steps)
