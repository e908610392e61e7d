"""Whether the weights of a checkpoint fit a network, and how a new training takes them over."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sapnet.errors import UserError
from sapnet.training.checkpoints import first_difference, network_weights

_GENERATOR = "generator."
#: Settings of a network that change neither its weights nor what they mean.
_IRRELEVANT = ("seed",)


def check_same_architecture(network: nn.Module, model: Mapping[str, Any], checkpoint: Mapping, path: Path) -> None:
    """Check that the weights of a checkpoint fit a network.

    Args:
        network: The network.
        model: The configuration that built it, as plain dicts.
        checkpoint: As `load_checkpoint` returns it.
        path: Where it lies, for messages.

    Raises:
        UserError: They do not fit; the sentence names the first parameter that differs and the settings that the two
            were built by.
    """
    difference = first_difference(network.state_dict(), network_weights(checkpoint))
    if difference is not None:
        raise _misfit(path, difference, _changed(checkpoint["sapnet"]["model"], model))


def take_weights(network: nn.Module, model: Mapping[str, Any], checkpoint: Mapping, path: Path) -> list[str]:
    """Give a new network the weights of a checkpoint, whose generator has to be the same.

    What chooses the points is taken over where it is of the same kind and size, and starts untrained otherwise.

    Args:
        network: The network.
        model: The configuration that built it, as plain dicts.
        checkpoint: As `load_checkpoint` returns it.
        path: Where it lies, for messages.

    Returns:
        What was not taken over, a sentence each.

    Raises:
        UserError: The generators differ, in the shape of a parameter or in a setting.
    """
    stored = checkpoint["sapnet"]["model"]
    theirs, their_samplers = _parts(network_weights(checkpoint), stored)
    ours, our_samplers = _parts(network.state_dict(), model)
    known, present = settings(stored.get("generator", stored)), settings(model.get("generator", model))
    # A setting that one of the two does not have comes from another version of the code.
    changed = {key: (known[key], present[key]) for key in known if key in present and known[key] != present[key]}
    difference = first_difference(ours, theirs)
    if difference is not None or changed:
        raise _misfit(path, difference, changed)
    notes = [f"{key} is not recorded in {path}: {value} is used." for key, value in present.items() if key not in known]
    same_kind = stored.get("sampler") == model.get("sampler")
    taken = same_kind and first_difference(our_samplers, their_samplers) is None
    if not taken and their_samplers:
        kind = f"sampling.sampler={stored.get('sampler')}"
        reason = (
            "of another size here"
            if same_kind
            else f"sampling.sampler={model['sampler']} here"
            if our_samplers
            else "not used here"
        )
        notes.append(f"Not taken from {path}: the weights of {kind}, {reason}.")
    if not taken and our_samplers:
        notes.append(f"What chooses the points (sampling.sampler={model['sampler']}) starts untrained.")
    prefix = _GENERATOR if "generator" in model else ""
    weights = {f"{prefix}{name}": value for name, value in theirs.items()} | (their_samplers if taken else our_samplers)
    network.load_state_dict(weights)
    return notes


def settings(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a network's configuration under the names that they have on the command line."""
    # Samplers stand around the generator that `model` describes.
    around = {key: value for key, value in description.items() if key not in ("generator", *_IRRELEVANT)}
    if "generator" not in description:
        return flat(description, "network.")
    return flat(description["generator"], "network.") | flat(around, "sampling.")


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by their dotted keys; lists are values."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return found


def _parts(state: Mapping[str, Tensor], model: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    # The generator's weights under its own names, and all others.
    if "generator" not in model:
        return dict(state), {}
    generator = {name.removeprefix(_GENERATOR): x for name, x in state.items() if name.startswith(_GENERATOR)}
    return generator, {name: x for name, x in state.items() if not name.startswith(_GENERATOR)}


def _changed(stored: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    theirs, ours = settings(stored), settings(model)
    return {key: (theirs.get(key), ours.get(key)) for key in {**theirs, **ours} if theirs.get(key) != ours.get(key)}


def _misfit(path: Path, difference: str | None, changed: Mapping[str, tuple[Any, Any]]) -> UserError:
    trained = ", ".join(f"{key}={theirs} (here {ours})" for key, (theirs, ours) in list(changed.items())[:4])
    reason = "" if difference is None else f": {difference}"
    return UserError(
        f"{path}: its weights do not fit this run's network{reason}; it was trained with "
        f"{trained or 'the same settings but another version of the code'}."
    )
