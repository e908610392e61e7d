"""Compare the weights of a checkpoint with a network, and transfer them to a new training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sapnet.errors import UserError

#: Prefix of the network's weights in a checkpoint.
_NETWORK = "network."
#: Prefix of the generator's weights in a network with samplers.
_GENERATOR = "generator."
#: Key of the moving average of the generator's weights in a checkpoint, if it has one: its settings, and `weights`.
EMA = "ema"
#: Settings of a network that change neither its weights nor their meaning.
_IRRELEVANT = ("seed",)


def network_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of the network in a checkpoint, by the network's own parameter names."""
    state = checkpoint["state_dict"]
    return {name.removeprefix(_NETWORK): value for name, value in state.items() if name.startswith(_NETWORK)}


def averaged_weights(checkpoint: Mapping[str, Any]) -> dict[str, Tensor] | None:
    """Return the weights of the network with the moving average in the generator; None if the checkpoint has none."""
    if EMA not in checkpoint:
        return None
    weights = network_weights(checkpoint)
    prefix = _GENERATOR if any(name.startswith(_GENERATOR) for name in weights) else ""
    average = {f"{prefix}{name}": value for name, value in checkpoint[EMA]["weights"].items()}
    return weights | {name: value.to(weights[name].dtype) for name, value in average.items() if name in weights}


def first_difference(expected: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> str | None:
    """Describe the first parameter that differs in name or shape; None if all parameters fit.

    Args:
        expected: Weights of the network.
        stored: Weights of the checkpoint.
    """
    for name, value in expected.items():
        if name not in stored:
            return f"{name} is missing in the checkpoint"
        if stored[name].shape != value.shape:
            return f"{name} is {tuple(stored[name].shape)} in the checkpoint and {tuple(value.shape)} in the network"
    extra = next((name for name in stored if name not in expected), None)
    return None if extra is None else f"{extra} of the checkpoint is not in the network"


def check_same_architecture(
    network: nn.Module, network_config: Mapping[str, Any], checkpoint: Mapping, path: Path
) -> None:
    """Check that the weights of a checkpoint fit a network.

    Args:
        network: Network that will load the weights.
        network_config: Configuration that built it, as plain dicts.
        checkpoint: Return value of `load_checkpoint`.
        path: File of the checkpoint, for messages.

    Raises:
        UserError: The weights do not fit. The message names the first parameter and the settings that differ.
    """
    difference = first_difference(network.state_dict(), network_weights(checkpoint))
    if difference is not None:
        raise _misfit(path, difference, _changed_settings(checkpoint["sapnet"]["model"], network_config))


def transfer_weights(
    network: nn.Module, network_config: Mapping[str, Any], checkpoint: Mapping, path: Path
) -> list[str]:
    """Load the weights of a checkpoint into a new network with the same generator.

    The weights of the samplers are transferred if they have the same kind and size. Otherwise the samplers keep their
    initial weights.

    Args:
        network: Network that loads the weights.
        network_config: Configuration that built it, as plain dicts.
        checkpoint: Return value of `load_checkpoint`.
        path: File of the checkpoint, for messages.

    Returns:
        Messages about what was not transferred, one sentence each.

    Raises:
        UserError: The generators differ, in the shape of a parameter or in a setting.
    """
    stored_config = checkpoint["sapnet"]["model"]
    stored_generator, stored_samplers = _split(network_weights(checkpoint), stored_config)
    own_generator, own_samplers = _split(network.state_dict(), network_config)
    _check_same_generator(stored_generator, own_generator, stored_config, network_config, path)
    notes = [
        f"{key} is not recorded in {path}: {value} is used."
        for key, value in _generator_settings(network_config).items()
        if key not in _generator_settings(stored_config)
    ]
    same_kind = stored_config.get("sampler") == network_config.get("sampler")
    transfer_samplers = same_kind and first_difference(own_samplers, stored_samplers) is None
    if not transfer_samplers and stored_samplers:
        reason = (
            "which have another size here"
            if same_kind
            else f"because sampling.sampler={network_config['sampler']} here"
            if own_samplers
            else "which are not used here"
        )
        kind = f"sampling.sampler={stored_config.get('sampler')}"
        notes.append(f"Not transferred from {path}: the weights of {kind}, {reason}.")
    if not transfer_samplers and own_samplers:
        notes.append(f"The sampler (sampling.sampler={network_config['sampler']}) starts untrained.")
    prefix = _GENERATOR if "generator" in network_config else ""
    weights = {f"{prefix}{name}": value for name, value in stored_generator.items()}
    network.load_state_dict(weights | (stored_samplers if transfer_samplers else own_samplers))
    return notes


def settings(network_config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a network by their names on the command line."""
    samplers = {key: value for key, value in network_config.items() if key not in ("generator", *_IRRELEVANT)}
    if "generator" not in network_config:
        return flatten(network_config, "network.")
    return flatten(network_config["generator"], "network.") | flatten(samplers, "sampling.")


def flatten(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        nested = isinstance(value, Mapping) and value
        flat |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def _check_same_generator(
    stored: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    stored_config: Mapping[str, Any],
    network_config: Mapping[str, Any],
    path: Path,
) -> None:
    before, after = _generator_settings(stored_config), _generator_settings(network_config)
    # A setting that only one of them has comes from another version of the code.
    changed = {key: (before[key], after[key]) for key in before if key in after and before[key] != after[key]}
    difference = first_difference(own, stored)
    if difference is not None or changed:
        raise _misfit(path, difference, changed)


def _generator_settings(network_config: Mapping[str, Any]) -> dict[str, Any]:
    return settings(network_config.get("generator", network_config))


def _split(
    weights: Mapping[str, Tensor], network_config: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split weights into those of the generator, without prefix, and all others."""
    if "generator" not in network_config:
        return dict(weights), {}
    generator = {name.removeprefix(_GENERATOR): x for name, x in weights.items() if name.startswith(_GENERATOR)}
    return generator, {name: x for name, x in weights.items() if not name.startswith(_GENERATOR)}


def _changed_settings(
    stored_config: Mapping[str, Any], network_config: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    before, after = settings(stored_config), settings(network_config)
    keys = {**before, **after}
    return {key: (before.get(key), after.get(key)) for key in keys if before.get(key) != after.get(key)}


def _misfit(path: Path, difference: str | None, changed: Mapping[str, tuple[Any, Any]]) -> UserError:
    trained = ", ".join(f"{key}={before} (here {after})" for key, (before, after) in list(changed.items())[:4])
    reason = "" if difference is None else f": {difference}"
    return UserError(
        f"{path}: its weights do not fit this run's network{reason}; it was trained with "
        f"{trained or 'the same settings but another version of the code'}."
    )
