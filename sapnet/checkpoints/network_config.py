"""Validation of network configurations, which are instantiated when a checkpoint is opened."""

import importlib
from collections.abc import Mapping
from typing import Any

from sapnet import __version__
from sapnet.errors import UserError

#: Packages whose classes a checkpoint may instantiate.
_ALLOWED_PACKAGES = ("sapnet.models.", "sapnet.layers.", "sapnet.sampling.")
#: Classes that have moved to another module, by their path in earlier checkpoints.
_MOVED_TARGETS = {"sapnet.models.adaptive.AdaptiveNetwork": "sapnet.models.adaptive_network.AdaptiveNetwork"}
_HYDRA_KEYS = frozenset({"_target_", "_args_", "_partial_", "_recursive_", "_convert_"})


def check_network_config(node: Any, key: str = "model") -> None:
    """Check that a network configuration instantiates only classes of sapnet and contains only plain values.

    Args:
        node: Configuration, or a part of it.
        key: Dotted key of this part, for messages.

    Raises:
        UserError: The configuration names another class, or contains something a checkpoint cannot store.
    """
    if isinstance(node, Mapping):
        for name, value in node.items():
            if not isinstance(name, str) or (name.startswith("_") and name.endswith("_") and name not in _HYDRA_KEYS):
                raise UserError(f"{key} has the key {name!r}, which a network configuration cannot have.")
            if name == "_target_":
                _check_target(value, key)
            check_network_config(value, f"{key}.{name}")
    elif isinstance(node, list | tuple):
        for index, value in enumerate(node):
            check_network_config(value, f"{key}.{index}")
    elif isinstance(node, str) and "${" in node:
        raise UserError(f"{key} contains the interpolation {node!r}, which a stored configuration cannot have.")
    elif node is not None and not isinstance(node, str | int | float):
        raise UserError(f"{key} contains a {type(node).__name__}, which a network configuration cannot have.")


def update_targets(node: Any) -> Any:
    """Replace the paths of classes that have moved since the checkpoint was written.

    Args:
        node: Configuration, or a part of it.
    """
    if isinstance(node, dict):
        return {
            key: _MOVED_TARGETS.get(value, value)
            if key == "_target_" and isinstance(value, str)
            else update_targets(value)
            for key, value in node.items()
        }
    return [update_targets(value) for value in node] if isinstance(node, list) else node


def _check_target(target: Any, key: str) -> None:
    if not isinstance(target, str) or not target.startswith(_ALLOWED_PACKAGES):
        raise UserError(f"{key} names {target!r}: only networks, layers and samplers of sapnet are allowed.")
    module, _, name = target.rpartition(".")
    try:
        value = getattr(importlib.import_module(module), name, None)
    except (ImportError, ValueError):
        value = None
    # The second test rejects classes that these modules only import.
    if not isinstance(value, type) or not f"{value.__module__}.".startswith(_ALLOWED_PACKAGES):
        raise UserError(f"{key} names {target!r}, which is not a class of sapnet {__version__}.")
