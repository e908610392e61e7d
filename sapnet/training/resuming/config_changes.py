"""Compare the configuration of a resumed training with that of its checkpoint.

Some settings may change when a training is resumed. These changes are applied and reported. Any other change is an
error, since neither configuration would describe the result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from sapnet import __version__
from sapnet.checkpoints.architecture import flatten
from sapnet.errors import UserError
from sapnet.training.phases import make_phases

#: Settings that choose the start of a training and are not compared.
_IGNORED = ("resume", "ckpt_path", "init_from")
#: Settings that may change when a training is resumed, as shell patterns.
_CHANGEABLE = (
    "steps",
    "optim.*",
    "policy.rate",
    *("validate_every", "checkpoint_*", "evaluate*", "study", "logger", "logger.*", "name", "group", "tags"),
    *("callbacks", "callbacks.*"),
    *("data.workers", "data.eval_batch", "data.cache", "data.store"),
    # The data folder may have moved. The number of pairs is compared after reading it.
    *("data.root", "data.train.blurred", "data.train.sharp", "data.val.blurred", "data.val.sharp"),
    *("data.test", "data.test.*"),
    *("trainer.accelerator", "trainer.strategy", "trainer.val_check_interval", "trainer.check_val_every_n_epoch"),
    *("trainer.log_every_n_steps", "trainer.num_sanity_val_steps", "trainer.limit_val_batches", "trainer.enable_*"),
    *("trainer.limit_test_batches", "trainer.limit_predict_batches", "trainer.inference_mode", "trainer.plugins"),
    *("trainer.benchmark", "trainer.deterministic", "trainer.detect_anomaly", "trainer.profiler", "trainer.max_time"),
)
#: Exceptions to `_CHANGEABLE`: the stored state of the optimizer would not fit.
_FIXED = ("optim.optimizer._target_", "optim.optimizer.amsgrad")
#: Precisions between which a training may change: all of them store the weights in float32.
_PRECISIONS = ("32", "32-true", "bf16-mixed", "16", "16-mixed")


@dataclass(frozen=True)
class Change:
    """A changed setting.

    Attributes:
        key: Dotted key of the setting.
        old: Value in the configuration of the checkpoint.
        new: Current value.
    """

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {as_override(self.old)} -> {as_override(self.new)}"

    @property
    def allowed(self) -> bool:
        """Whether a training may be resumed with this change."""
        if self.key == "trainer.precision":
            return {str(self.old), str(self.new)} <= set(_PRECISIONS)
        return self.key not in _FIXED and any(fnmatchcase(self.key, pattern) for pattern in _CHANGEABLE)


def as_override(value: Any) -> str:
    """Return a value in the syntax of the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(as_override, value))}]"
    return (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)
    )


def changes_since(checkpoint: Mapping[str, Any], config: DictConfig, path: Path) -> list[Change] | None:
    """Return the settings that changed since a checkpoint was written.

    Args:
        checkpoint: Return value of `load_checkpoint`.
        config: Current configuration.
        path: File of the checkpoint, for messages.

    Returns:
        Allowed changes; None if the checkpoint contains no configuration (earlier versions).

    Raises:
        UserError: A setting changed that must not change, or the checkpoint is beyond the number of steps.
    """
    metadata = checkpoint["sapnet"]
    stored = metadata.get("config")
    if not isinstance(stored, Mapping):
        return None
    changes = _changes(stored, config, same_version=metadata.get("version") == __version__)
    refused = [change for change in changes if not change.allowed]
    if refused:
        named = ", ".join(map(str, refused[:3])) + (f" and {len(refused) - 3} more" if len(refused) > 3 else "")
        raise UserError(
            f"{named} cannot change when a training is resumed ({path}, step {metadata['generator_steps']}): use"
            f" {refused[0].key}={as_override(refused[0].old)}, or start a new training in another run folder"
            f" (with these weights: init_from={path})."
        )
    _check_steps(stored, config, metadata["generator_steps"], path)
    return changes


def _changes(stored: Mapping[str, Any], config: DictConfig, same_version: bool) -> list[Change]:
    before, after = flatten(stored), flatten(_as_dict(config))
    keys = [key for key in {**before, **after} if key not in _IGNORED]
    if not same_version:
        # Another version of the code may have other keys.
        keys = [key for key in keys if key in before and key in after]
    changes = [Change(key, before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)]
    # A change is reported once, not for the settings that copy it by interpolation.
    copies = _interpolated_keys(config)
    derived = [c for c in changes if any(c.key == key or c.key.startswith(f"{key}.") for key in copies)]
    sources = {(repr(c.old), repr(c.new)) for c in changes if c not in derived}
    return [c for c in changes if c not in derived or (repr(c.old), repr(c.new)) not in sources]


def _as_dict(config: DictConfig, resolve: bool = True) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(config, resolve=resolve))


def _interpolated_keys(config: DictConfig) -> tuple[str, ...]:
    unresolved = flatten(_as_dict(config, resolve=False))
    return tuple(key for key, value in unresolved.items() if isinstance(value, str) and "${" in value)


def _check_steps(stored: Mapping[str, Any], config: DictConfig, step: int, path: Path) -> None:
    steps, before = config.steps, stored.get("steps")
    if steps == before or before is None:
        return
    if steps < step:
        raise UserError(f"steps={steps}: {path} is already at step {step}; use more steps, or steps={before}.")
    pretrain = config.policy.pretrain if config.sampling.get("sampler") == "learned" else 0.0
    part, part_before = (_training_part(step, total, config.stagewise, pretrain) for total in (steps, before))
    if part < part_before:
        raise UserError(
            f"steps: {before} -> {steps} would return the training at step {step} to a part that is already complete,"
            " because stagewise and policy.pretrain are shares of the steps: use fewer"
            f" steps, or start a new training with these weights (init_from={path}) in another run folder."
        )


def _training_part(step: int, steps: int, stagewise: Sequence[float], pretrain: float) -> tuple[int, bool]:
    """Return the phase of a step, and whether the policy learns by policy gradient at that step."""
    phases = make_phases(steps, stagewise)
    number = next((i for i, phase in enumerate(phases) if step < phase.end), len(phases) - 1)
    return number, step >= phases[number].begin + round(pretrain * phases[number].steps)
